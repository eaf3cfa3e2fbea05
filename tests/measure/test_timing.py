"""Times on a machine that others use are said to be such."""

from senet_jax.measure import timing


def test_a_busy_machine_is_told(monkeypatch, caplog):
  monkeypatch.setattr('os.cpu_count', lambda: 2)
  for load, said in ((2.9, False), (15.7, True)):
    caplog.clear()
    monkeypatch.setattr('os.getloadavg', lambda load=load: (load, 0, 0))
    timing.warn_if_busy()
    assert ('a load of 15.7 on 2 cores' in caplog.text) == said
