"""The end of a run: its summary and its curves."""

from senet_jax.storage.buckets import Path
from senet_jax.training.progress import Reporter
from senet_jax.training.task import Feeds, Task
from senet_jax.workdir import summary as summary_lib
from senet_jax.workdir.records import read_records
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState


def finish(
  task: Task,
  feeds: Feeds,
  state: TrainState,
  progress: RunProgress,
  workdir: Path,
  reporter: Reporter,
) -> None:
  """Writes `summary.json` and `curves.png` of a complete run, and says where they are."""
  summary = summary_lib.summarize(state, progress)
  if feeds.streamed:
    unreadable = feeds.unreadable().items()
    summary['unreadable_images'] = {split: sorted(v.values()) for split, v in unreadable}
  summary_lib.write(workdir, summary)
  config, final, best = task.config, summary['final'], summary['best']
  result = f'{config.data.eval_split} {task.headline_metric} {task.headline(final)}'
  title = f'{config.model.name} on {config.data.name}: {result}'
  task.plot(read_records(reporter.path), workdir / 'curves.png', title)
  reporter.say(
    f'{result} after {final["epoch"]:g} epochs (best {task.headline(best)} at epoch '
    f'{best["epoch"]:g}), {progress.wall_time_s:.0f} s'
  )
  reporter.say(f'curves: {workdir / "curves.png"}')
  reporter.say(f'summary: {workdir / "summary.json"}')
