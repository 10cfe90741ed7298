"""Models go to the hub and come back; the hub is a small one on loopback."""

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charloom.errors import CharloomError
from charloom.exchange.html import export_html
from charloom.exchange.hub import HubModel
from charloom.exchange.hub_folder import write_folder
from helpers.cli import files_of
from helpers.hub import (
    FILES,
    NO_MODEL,
    NOBODY,
    TOKEN,
    Hub,
    ask_at,
    of_another_library,
    saved,
    some_checkpoint,
)

# huggingface_hub's own, where it uploads without hf_xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    ask_at(server.url, tmp_path, monkeypatch)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_push_and_pull_round_trip(hub: Hub, evaluated_run: Path) -> None:
    model = HubModel.from_pretrained(evaluated_run)
    address = model.push_to_hub("me/book", private=True, token=TOKEN, commit_message="The woods")
    repository = hub.repositories["me/book"]
    assert address == f"{hub.url}/me/book/commit/{repository.branches['main']}"
    assert repository.private
    assert repository.messages[-1] == "The woods"
    files = repository.files()
    assert sorted(files) == sorted([*FILES, ".gitattributes"])
    assert files["model.safetensors"] == (evaluated_run / "model.safetensors").read_bytes()
    text = files["README.md"].decode()
    assert "# `me/book`" in text
    assert "from_pretrained('me/book')\n" in text
    assert "hf download me/book --local-dir book" in text
    assert f"{model.config.hidden_size} hidden units" in text
    back = HubModel.from_pretrained("me/book", token=TOKEN)
    assert back.sample(length=50) == model.sample(length=50)
    assert back.generate_model_card("me/book").content == text
    with pytest.raises(CharloomError, match="nor an accessible model on Hugging Face Hub"):
        HubModel.from_pretrained("me/book", cache_dir="elsewhere")  # without the token


def test_saving_can_push(hub: Hub) -> None:
    model = HubModel(some_checkpoint())
    more = {"license": "mit"}
    model.save_pretrained("book", push_to_hub=True, token=TOKEN, model_card_kwargs=more)
    files = hub.repositories["me/book"].files()
    assert files["model.safetensors"] == Path("book/model.safetensors").read_bytes()
    assert b"license: mit" in files["README.md"]
    assert b"# `me/book`" in files["README.md"]  # whose it is was told by the hub
    model.save_pretrained("book", push_to_hub=True, repo_id="me/other", token=TOKEN)
    assert set(FILES) <= set(hub.repositories["me/other"].files())


def test_branches_requests_and_revisions(hub: Hub) -> None:
    repository = hub.repository("me/book")
    repository.branches["draft"] = repository.branches["main"]
    HubModel(some_checkpoint("rnn")).push_to_hub("me/book", token=TOKEN, branch="draft")
    assert sorted(repository.files()) == [".gitattributes"]
    HubModel(some_checkpoint("lstm")).push_to_hub("me/book", token=TOKEN, create_pr=True)
    assert sorted(repository.files()) == [".gitattributes"]
    HubModel(some_checkpoint("gru")).push_to_hub("me/book", token=TOKEN, allow_patterns="*.json")
    assert sorted(repository.files()) == [".gitattributes", "config.json", "evaluations.json"]
    for revision, cell in (("draft", "rnn"), ("refs/pr/1", "lstm")):
        if "/" in revision:
            revision = repository.branches[revision]
        assert HubModel.from_pretrained("me/book", revision=revision).config.cell == cell
    with pytest.raises(CharloomError, match="me/book has no revision 'v2'"):
        HubModel.from_pretrained("me/book", revision="v2")


def test_downloads_work_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved()
    hub.repository("you/book", Path("book"))
    for cache in ("one", "two"):
        HubModel.from_pretrained("you/book", cache_dir=cache)
    asked = len(hub.asked)
    HubModel.from_pretrained("you/book", cache_dir="one", local_files_only=True)
    assert len(hub.asked) == asked
    # The files themselves are not asked for twice, unless it is wished.
    HubModel.from_pretrained("you/book", cache_dir="one")
    assert not any(line.startswith("GET /you") for line in hub.asked[asked:])
    HubModel.from_pretrained("you/book", cache_dir="one", force_download=True)
    assert "GET /you/book/resolve" in "".join(hub.asked[asked:])
    ask_at(NOBODY, tmp_path, monkeypatch)
    assert HubModel.from_pretrained("you/book", cache_dir="two").config.hidden_size == 7
    for more, said in (
        ({}, r"Hugging Face Hub cannot be reached \(.*refused"),
        ({"local_files_only": True}, "Hugging Face Hub is not used"),
    ):
        with pytest.raises(
            CharloomError, match=f"neither a folder nor in the cache.*{said}"
        ) as caught:
            HubModel.from_pretrained("you/other", cache_dir="two", **more)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        CharloomError, match=r"Hugging Face Hub request for me/book failed: "
    ) as caught:
        HubModel(some_checkpoint()).push_to_hub("me/book", token=TOKEN)
    assert len(str(caught.value).splitlines()) == 1


def test_all_files_are_of_one_commit(hub: Hub) -> None:
    write_folder(some_checkpoint("lstm"), [], Path("newer"))
    repository = hub.repository("you/book", saved())
    hub.meanwhile = lambda: repository.commit("main", files_of(Path("newer")))
    assert HubModel.from_pretrained("you/book").config.cell == "gru"
    hub.meanwhile = None
    assert HubModel.from_pretrained("you/book").config.cell == "lstm"


def test_a_hub_that_never_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("charloom.exchange.hub_client.LONGEST_WAIT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ask_at(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, monkeypatch)
        with pytest.raises(CharloomError, match="Hugging Face Hub cannot be reached"):
            HubModel.from_pretrained("you/book")
        with pytest.raises(CharloomError, match="request for me/book failed"):
            HubModel(some_checkpoint()).push_to_hub("me/book", token=TOKEN)


def test_a_card_that_was_changed_on_the_hub_is_kept(hub: Hub) -> None:
    HubModel(some_checkpoint("rnn")).push_to_hub("me/book", token=TOKEN)
    repository = hub.repositories["me/book"]
    ours = repository.files()["README.md"]
    HubModel(some_checkpoint("lstm")).push_to_hub("book", token=TOKEN)
    theirs = repository.files()["README.md"]
    assert theirs != ours
    assert b"(lstm)" in theirs
    mine = theirs.replace(b"## Limits", b"## Mine")
    repository.commit("main", repository.files() | {"README.md": mine})
    with pytest.warns(UserWarning, match=r"me/book/README\.md was edited by hand"):
        HubModel(some_checkpoint("gru")).push_to_hub(
            "me/book", token=TOKEN, ignore_patterns="*.txt"
        )
    assert repository.files()["README.md"] == mine
    assert b'"cell": "gru"' in repository.files()["config.json"]


@pytest.mark.parametrize(("change", "said"), NO_MODEL)
def test_hub_folder_without_a_model_is_refused(hub: Hub, change: Any, said: str) -> None:
    change(saved())
    hub.repository("you/book", Path("book"))
    shutil.rmtree("book")
    with pytest.raises(CharloomError, match=re.escape(said)) as caught:
        HubModel.from_pretrained("you/book")
    assert len(str(caught.value).splitlines()) == 1
    assert not Path("victim").exists()
    if change is of_another_library:
        assert not any("model.safetensors" in line for line in hub.asked)


def test_hub_errors_are_one_line(hub: Hub) -> None:
    def told(name: str, **more: Any) -> str:
        with pytest.raises(CharloomError) as caught:
            HubModel.from_pretrained(name, **more)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "nor an accessible model on Hugging Face Hub" in told("you/nothing")
    for name in ("a/b/c", "a b", "../a", "a\0b", "x" * 5000, "you/--", "runs/book.txt/"):
        assert "is neither a folder nor a model's name on Hugging Face Hub" in told(name)
    hub.repository("you/book", saved())
    hub.repository("you/empty")
    assert "you/empty contains no model.safetensors" in told("you/empty")
    (Path("book") / "config.json").unlink()
    hub.repository("you/bare", Path("book"))
    assert "you/bare contains no config.json" in told("you/bare")
    hub.repositories["you/book"].gated = True
    assert "is restricted by its owner" in told("you/book")
    hub.status = 500
    assert "request for you/book failed: " in told("you/book")
    hub.status = 0

    def told_when_pushing(name: str, token: str | None) -> str:
        with pytest.raises(CharloomError) as caught:
            HubModel(some_checkpoint()).push_to_hub(name, token=token)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "hf auth login" in told_when_pushing("you/book", TOKEN)
    assert "hf auth login" in told_when_pushing("me/book", "hf_wrong")
    assert "hf auth login" in told_when_pushing("me/book", None)
    assert "is neither a folder nor a model's name on Hugging Face Hub" in told_when_pushing(
        "a/b/c", TOKEN
    )
    assert not [name for name in hub.repositories if name.startswith("me/")]


def test_a_page_is_pushed_as_a_static_space(hub: Hub) -> None:
    model = HubModel(some_checkpoint())
    assert "me/page" in model.push_page("me/page", token=TOKEN)
    page = hub.repositories["spaces/me/page"].files()["index.html"].decode()
    assert page == export_html(model)
    model.push_page("page", token=TOKEN)  # once more, by its short name
    assert len(hub.repositories["spaces/me/page"].commits) >= 2
    with pytest.raises(CharloomError, match="hf auth login"):
        model.push_page("you/page", token=TOKEN)
