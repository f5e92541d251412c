from kerasft.progress import Event, silent


def test_an_event_needs_no_phase_and_no_figures():
    event = Event("images", 3, 36)
    assert (event.phase, dict(event.figures)) == ("", {})


def test_silent_takes_any_event_and_shows_nothing(capsys):
    silent(Event("epoch", 1, 20, "head", {"loss": 0.5}))
    assert capsys.readouterr() == ("", "")
