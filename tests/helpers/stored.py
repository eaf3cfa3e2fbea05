"""What is in the files of a prepared data set."""


def read(version_dir, split) -> tuple[dict, list[str]]:
  """File name -> image as stored and label, in the order of the files; names of the labels."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(version_dir)
  encoded = {'image': tfds.decode.SkipDecoding()}
  if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
    examples = list(builder.as_data_source(split, decoders=encoded))
  else:
    examples = list(builder.as_dataset(split, decoders=encoded).as_numpy_iterator())
  found = {e['file_name'].decode(): (e['image'], int(e['label'])) for e in examples}
  assert len(found) == len(examples) == builder.info.splits[split].num_examples
  return found, builder.info.features['label'].names
