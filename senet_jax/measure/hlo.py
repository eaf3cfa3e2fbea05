"""Counts the bytes that a compiled program moves, from the text of its HLO.

XLA's own totals are missing for GPUs, and no total says which layer moves what. Here each
instruction of the entry computation, one kernel or library call, counts its operands and results
once; loops count as often as they run. What lies in the on-chip memory of a TPU is not counted.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

_BITS = {'pred': 8, 's4': 4, 'u4': 4, 'bf16': 16, 'c64': 64, 'c128': 128}
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'all-to-all',
  'collective-permute',
  'reduce-scatter',
  'collective-broadcast',
)
# What moves nothing: names for parts of a buffer, and the ends of what has begun before.
_FREE = ('parameter', 'constant', 'iota', 'tuple', 'get-tuple-element', 'bitcast', 'after-all',
         'partition-id', 'replica-id', 'opt-barrier', 'copy-done', 'slice-done', 'async-done',
         'async-update', 'all-reduce-done', 'all-gather-done', 'collective-permute-done',
         'send-done', 'recv-done')  # fmt: skip
_MODULE = re.compile(r'^HloModule ([\w.\-]+)')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%([\w.\-]+) = (.*)$')
_OPCODE = re.compile(r' ([a-z][a-z0-9\-]*)\(')
_ARRAY = re.compile(r'\b([a-z]+[0-9]*(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\](?:\{([^{}]*)\})?')
# Parts of an `op_name` that are no modules: transformations, and platforms' branches.
_NO_MODULE = re.compile(
  r'(?:transpose|jvp|jit|vmap|remat|checkpoint|rematted_computation)\b.*'
  r'|shard_map|while|body|cond|branch_\d+_fun'
)


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a result.

  Attributes:
    dtype: as HLO writes it, such as `bf16`.
    shape: its sizes.
    on_chip: whether it lies in a TPU's on-chip memory.
  """

  dtype: str
  shape: tuple[int, ...]
  on_chip: bool

  @property
  def bytes(self) -> int:
    """The size in bytes, without padding."""
    bits = _BITS.get(self.dtype) or int(re.findall(r'\d+', self.dtype)[0])
    return math.prod(self.shape) * bits // 8

  def __str__(self) -> str:
    return f'{self.dtype}[{",".join(map(str, self.shape))}]'


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction.

  Attributes:
    name: without `%`.
    opcode: such as `fusion`.
    results: its arrays; those of a tuple in their order.
    operands: names of instructions of the same computation; of a parameter, its number.
    attributes: the rest of the line.
  """

  name: str
  opcode: str
  results: tuple[Array, ...]
  operands: tuple[str, ...]
  attributes: str

  @property
  def op_name(self) -> str:
    """The place in the Python program that it comes from; empty if unknown."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ''

  def calls(self, kind: str) -> str:
    """Returns the name of the computation in the attribute `kind`, such as `body`, or ''."""
    found = re.search(rf'\b{kind}=%?([\w.\-]+)', self.attributes)
    return found[1] if found else ''


@dataclasses.dataclass(frozen=True)
class Traffic:
  """An instruction and what it moves in the whole program.

  Attributes:
    instruction: the instruction.
    bytes: of operands and results, times how often it runs.
    times: how often it runs.
    near: where the compiler names no layer, that of what it is fused of, or else of what it takes;
      empty if there is none either.
  """

  instruction: Instruction
  bytes: int
  times: int
  near: str = ''

  @functools.cached_property
  def layer(self) -> str:
    """The layer it belongs to, as of `layer_of`."""
    return layer_of(self.instruction.op_name)


class Module:
  """A program.

  Attributes:
    name: as traces write it; empty if the text does not say.
    computations: instructions by computation, in order and by name.
    entry: the name of the computation where it starts.
  """

  def __init__(self, text: str):
    """Reads what `compiled.as_text()` returns.

    Raises:
      ValueError: it has no entry computation.
    """
    named = _MODULE.match(text)
    self.name = named[1] if named else ''
    self.computations: dict[str, dict[str, Instruction]] = {}
    self.entry, current = '', {}
    for line in text.splitlines():
      if head := _COMPUTATION.match(line):
        current = self.computations.setdefault(head[2], {})
        self.entry = head[2] if head[1] else self.entry
      elif found := _INSTRUCTION.match(line):
        instruction = _instruction(*found.groups())
        current[instruction.name] = instruction
    if not self.entry:
      raise ValueError('This is not the text of an HLO module: it has no ENTRY.')

  @functools.cached_property
  def traffic(self) -> list[Traffic]:
    """The instructions that move bytes, in the order of the program."""
    return list(self._traffic(self.entry, 1))

  @property
  def bytes(self) -> int:
    """The bytes that one run reads and writes."""
    return sum(item.bytes for item in self.traffic)

  @property
  def loops(self) -> bool:
    """True if a part of the program runs more than once."""
    return any(item.times > 1 for item in self.traffic)

  def collectives(self) -> dict[str, dict[str, int]]:
    """Returns `{kind: {count, bytes}}` of the collectives of one run, with the bytes of results."""
    found: dict[str, dict[str, int]] = collections.defaultdict(lambda: {'count': 0, 'bytes': 0})
    for item in self.traffic:
      kind = item.instruction.opcode.removesuffix('-start')
      if kind in COLLECTIVES:
        # The result of an asynchronous one has its operands in front.
        results = item.instruction.results
        if kind != item.instruction.opcode and len(results) == 2 * len(item.instruction.operands):
          results = results[len(results) // 2 :]
        found[kind]['count'] += item.times
        found[kind]['bytes'] += item.times * sum(array.bytes for array in results)
    return dict(found)

  def _traffic(self, computation: str, times: int) -> Iterator[Traffic]:
    instructions = self.computations[computation]
    for instruction in instructions.values():
      if instruction.opcode == 'while':
        trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
        yield from self._traffic(instruction.calls('body'), times * int(trips[1] if trips else 1))
      elif instruction.opcode in ('call', 'async-start') and (
        called := instruction.calls('to_apply') or instruction.calls('calls')
      ):
        yield from self._traffic(called, times)
      elif instruction.opcode not in _FREE:
        moved = times * self._moved(instruction, instructions)
        named = layer_of(instruction.op_name)
        yield Traffic(
          instruction, moved, times, '' if named else self._near(instruction, instructions)
        )

  def _near(self, instruction: Instruction, neighbours: dict[str, Instruction]) -> str:
    """Returns the layer most of whose work a fusion does, or from which an instruction takes."""
    inside = self.computations.get(instruction.calls('calls'), {})
    layers = collections.Counter(layer_of(part.op_name) for part in inside.values())
    del layers['']
    if layers:
      return layers.most_common(1)[0][0]
    waiting, seen = collections.deque(instruction.operands), set()
    while waiting:
      name = waiting.popleft()
      if name in seen or name not in neighbours:
        continue
      if layer := layer_of(neighbours[name].op_name):
        return layer
      seen.add(name)
      waiting.extend(neighbours[name].operands)
    return ''

  def _moved(self, instruction: Instruction, neighbours: dict[str, Instruction]) -> int:
    """Returns the bytes that an instruction reads and writes; of slices, what is taken or set."""
    inside = {instruction.name: instruction}
    given = list(instruction.operands)
    if instruction.opcode == 'fusion':
      inside = self.computations[instruction.calls('calls')]
      parameters = (i for i in inside.values() if i.opcode == 'parameter')
      given = [i.name for i in sorted(parameters, key=lambda i: int(i.operands[0]))]
    written = _in_memory(_results(instruction))
    if instruction.opcode.endswith('-start'):  # shows its source among its results
      return written
    moved = written
    counted = set()
    for name, parameter in zip(instruction.operands, given, strict=True):
      if name not in neighbours or name in counted:
        continue
      counted.add(name)
      whole = _in_memory(neighbours[name].results)
      part = _part_used(parameter, inside)
      moved += whole if part is None else min(part, whole)
      if part is not None and _is_updated(parameter, inside):
        moved -= whole  # the result is the operand, of which only the update is written
    return moved


def bytes_moved(compiled: Any, module: Module | None = None) -> tuple[int, str]:
  """Returns the bytes that a compiled program reads and writes on each device, and who counts them.

  XLA counts where it has a total (TPU, CPU) and no loop of known length, whose body it would count
  once; elsewhere `Module` does, from the text. Other loops count as one round. A part of the bytes
  may be served by caches.

  Args:
    compiled: a `jax.stages.Compiled`.
    module: its text, where it has been read already.
  """
  counted = (compiled.cost_analysis() or {}).get('bytes accessed')
  module = module or Module(compiled.as_text())
  if counted and not module.loops:
    return int(counted), 'XLA'
  return module.bytes, 'HLO text'


def _users(name: str, inside: dict[str, Instruction]) -> list[tuple[Instruction, str]]:
  """Returns the instructions that use `name`, directly or reshaped, and the name that they use."""
  found = []
  for instruction in inside.values():
    if name in instruction.operands:
      if instruction.opcode in ('bitcast', 'reshape'):
        found += _users(instruction.name, inside)
      else:
        found.append((instruction, name))
  return found


def _part_used(name: str, inside: dict[str, Instruction]) -> int | None:
  """Returns the bytes used of an array that is only sliced or updated; None if all are used."""
  part = 0
  for user, operand in _users(name, inside):
    if user.opcode in ('dynamic-slice', 'slice') and user.operands[0] == operand:
      part += sum(array.bytes for array in user.results)
    elif user.opcode == 'dynamic-update-slice' and user.operands[0] == operand:
      update = inside.get(user.operands[1])
      part += sum(array.bytes for array in update.results) if update else 0
    else:
      return None
  return part


def _is_updated(name: str, inside: dict[str, Instruction]) -> bool:
  return any(
    user.opcode == 'dynamic-update-slice' and user.operands[0] == operand
    for user, operand in _users(name, inside)
  )


def layer_of(op_name: str) -> str:
  """Returns the module in an `op_name`, a gradient's with `backward`: `stage2_block1/bn3 backward`.

  `input` and `optimizer` are the parts of a training step that `training.step` names so; empty
  where nothing is named, such as in the loss.
  """
  parts = [part for part in op_name.split('/')[:-1] if not _NO_MODULE.fullmatch(part)]
  # Methods of Flax modules are written as `module.method`.
  layer = '/'.join(part for part in parts if '.' not in part)
  return f'{layer} backward' if layer and 'transpose(' in op_name else layer


def _instruction(name: str, line: str) -> Instruction:
  opcode = next(_OPCODE.finditer(' ' + line))
  start = opcode.end() - 1
  end = line.find(')', start)
  operand = r'\d+' if opcode[1] == 'parameter' else r'(?<=%)[\w.\-]+'
  return Instruction(
    name=name,
    opcode=opcode[1],
    results=tuple(
      Array(dtype, tuple(int(size) for size in shape.split(',') if size), 'S(1)' in layout)
      for dtype, shape, layout in _ARRAY.findall(line[: opcode.start()])
    ),
    operands=tuple(re.findall(operand, line[start:end])),
    attributes=line[end:],
  )


def _in_memory(arrays: tuple[Array, ...]) -> int:
  return sum(array.bytes for array in arrays if not array.on_chip)


def _results(instruction: Instruction) -> tuple[Array, ...]:
  """Returns the arrays that it writes, without the workspace of a library call."""
  results = instruction.results
  if instruction.opcode == 'custom-call' and len(results) > 1 and results[-1].dtype == 'u8':
    results = results[:-1]
  return results
