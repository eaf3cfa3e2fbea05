"""The page and its API."""

import dataclasses
import pathlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import jax
import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

import senet_jax
from senet_jax.data import class_names
from senet_jax.data.photos import UnreadableImage
from senet_jax.prediction import Prediction, Predictor
from senet_jax.serving.classifier import Classifier
from senet_jax.serving.limits import Limits

_PAGE = pathlib.Path(__file__).parent / 'page'
_DESCRIPTION = (
  'Names what photos show. A demonstration on one machine: photos are held in memory until they '
  'are answered, and are not kept.'
)
# A body is the photo itself, or a form with one.
_PHOTO = {'type': 'string', 'format': 'binary'}
_BODY = {
  'requestBody': {
    'required': True,
    'content': {
      'application/octet-stream': {'schema': _PHOTO},
      'multipart/form-data': {
        'schema': {'type': 'object', 'properties': {'photo': _PHOTO}, 'required': ['photo']}
      },
    },
  }
}


class Refusal(BaseModel):
  """Why there is no answer."""

  error: str


class Gates(BaseModel):
  """The gates of one SE block: what each channel is multiplied with."""

  block: str = Field(description='by its name in the paper: SE_stage_unit')
  values: list[float] = Field(description='one a channel, rounded to 4 digits')


class Answer(BaseModel):
  """The answer of the network to a photo."""

  predictions: list[Prediction] = Field(description='the most probable classes, the best first')
  gates: list[Gates] | None = Field(None, description='of all blocks, where they are asked for')


class Preprocessing(BaseModel):
  """The way of a photo into the network."""

  resize: int = Field(description='pixels of the shorter side, before the crop')
  keep_aspect: bool = Field(description='if not, both sides are resized')
  interpolation: str
  height: int = Field(description='of the crop in the middle')
  width: int
  channels: int
  image_size: int = Field(description="side of the network's input")
  mean: list[float] = Field(description='by channel, 0 to 255, subtracted')
  std: list[float] = Field(description='by channel, 0 to 255, divided by')


class Model(BaseModel):
  """The network that answers, and what it takes."""

  name: str
  network: str
  step: int = Field(description='of its checkpoint')
  parameters: int
  classes: list[str] = Field(description='names by label')
  preprocessing: Preprocessing
  mean_gates: list[Gates] | None = Field(description='over a data set, where they are known')
  max_bytes: int
  max_pixels: int
  max_seconds: float = Field(description='of a request, to its answer')


def create_app(
  classifier: Classifier,
  name: str,
  limits: Limits,
  mean_gates: Mapping[str, np.ndarray] | None = None,
) -> FastAPI:
  """Returns the application.

  Args:
    classifier: entered before the first request.
    name: of the network, for people.
    limits: to be told; `Guard` enforces them.
    mean_gates: of each SE block, `[C]`, which the page can show gates relative to.
  """
  app = FastAPI(
    title=f'senet_jax: {name}',
    version=senet_jax.__version__,
    description=_DESCRIPTION,
    docs_url=None,  # they are loaded from elsewhere
    redoc_url=None,
  )
  _answer_errors(app)
  about = _describe(classifier.predictor, name, limits, mean_gates)
  refusals = {
    400: 'The photo is missing or unreadable, or the request says a wrong host.',
    413: 'The photo is too large as a file.',
    422: 'A parameter is wrong.',
    503: 'There are too many requests, or it takes too long; try again.',
  }

  @app.get('/api/model', summary='The network, and what it takes')
  async def model() -> Model:
    return about

  @app.post(
    '/api/predict',
    summary='The most probable classes of a photo',
    responses={k: {'model': Refusal, 'description': v} for k, v in refusals.items()},
    openapi_extra=_BODY,
  )
  async def predict(
    request: Request,
    top_k: Annotated[int, Query(ge=1, description='classes to name; all if there are fewer')] = 5,
    gates: Annotated[bool, Query(description='return the gates of all SE blocks, too')] = False,
  ) -> Answer:
    photo = await _photo(request, limits)
    try:
      answer = await classifier.answer(photo)
    except UnreadableImage as error:
      raise HTTPException(400, f'the photo is unreadable: {error}.') from error
    best = classifier.predictor.best(answer.probabilities, top_k)
    return Answer(predictions=best, gates=_listed(answer.gates) if gates else None)

  for path, file in (('/', 'index.html'), ('/docs', 'docs.html')):
    app.add_route(path, _sender(file), include_in_schema=False)
  app.mount('/static', StaticFiles(directory=_PAGE))
  return app


def _answer_errors(app: FastAPI) -> None:
  """Has every error answered as a `Refusal`."""

  @app.exception_handler(AnyHTTPException)
  async def refused(request: Request, error: AnyHTTPException) -> JSONResponse:
    return JSONResponse({'error': str(error.detail)}, error.status_code, error.headers)

  @app.exception_handler(RequestValidationError)
  async def wrong_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    where = '.'.join(map(str, first['loc'][1:]))
    return JSONResponse({'error': f'{where}: {first["msg"]}'}, 422)

  @app.exception_handler(Exception)
  async def fault(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({'error': 'the server failed; what it prints says where.'}, 500)


async def _photo(request: Request, limits: Limits) -> bytes:
  """Returns the photo of a request: the first file of a form, or the body itself."""
  if not request.headers.get('content-type', '').startswith('multipart/form-data'):
    return await request.body()
  parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=8)
  parser.spool_max_size = 2 * limits.bytes  # nothing goes to the disk
  try:
    form = await parser.parse()
  except MultiPartException as error:
    raise HTTPException(400, f'the form is damaged: {error.message}') from error
  try:
    for value in form.values():
      if isinstance(value, UploadFile):
        return await value.read()
  finally:
    await form.close()
  raise HTTPException(400, 'the form has no file; send the photo as one.')


def _sender(file: str) -> Callable[[Request], Awaitable[FileResponse]]:
  async def send(request: Request) -> FileResponse:
    return FileResponse(_PAGE / file)

  return send


def _listed(gates: Mapping[str, np.ndarray]) -> list[Gates]:
  return [Gates(block=k, values=np.round(v.astype(float), 4).tolist()) for k, v in gates.items()]


def _describe(
  predictor: Predictor, name: str, limits: Limits, mean_gates: Mapping[str, np.ndarray] | None
) -> Model:
  way = dataclasses.asdict(predictor.preprocessing)
  height, width, channels = way.pop('shape')
  return Model(
    name=name,
    network=predictor.config.model.name,
    step=predictor.step,
    parameters=sum(x.size for x in jax.tree.leaves(predictor.variables['params'])),
    classes=[class_names.readable(c) for c in predictor.class_names],
    preprocessing=Preprocessing(height=height, width=width, channels=channels, **way),
    mean_gates=None if mean_gates is None else _listed(mean_gates),
    max_bytes=limits.bytes,
    max_pixels=limits.pixels,
    max_seconds=limits.seconds,
  )
