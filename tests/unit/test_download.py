"""Downloading: a file appears only when it is complete, and no received byte is fetched again."""

import errno
import json
import os
from pathlib import Path

import pytest
from support.by_hand import JOB_ID, PROJECT_ID, ByHand, answered, lost

from techforge._flow import Open, Opened, Read, Send, Sleep
from techforge._flows.download import download, download_video
from techforge._partfile import PartFile
from techforge.errors import (
    APIResponseError,
    APIStatusError,
    DownloadError,
    InvalidArgumentError,
    NotFoundError,
    TargetExistsError,
)
from techforge.models import Job, Video
from techforge.models import SignedUrl as Signed
from techforge_api.models import SignedUrl

PATH = "ai-talking-videos/p/outputs/video.mp4"
URL = "https://cdn.example.com/video.mp4?signature=secret"
SIGNED = SignedUrl(signed_url=URL)
CONTENT = bytes(range(256)) * 4


class Cdn:
    """A small storage: one object, ranges, and failures on request."""

    def __init__(self, content: bytes = CONTENT, etag: str | None = '"a"', chunk: int = 100) -> None:
        self.content, self.etag, self.chunk = content, etag, chunk
        self.break_after: list[int] = []
        self.answers: list[Opened | Exception] = []
        self.ignore_range = False
        self.length: int | None = None
        self._left = b""
        self._budget: int | None = None

    def open(self, command: Open) -> Opened:
        """Respond to a request."""
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            if answer.status_code not in {200, 206}:
                return answer
        self._budget = self.break_after.pop(0) if self.break_after else None
        headers = {} if self.etag is None else {"etag": self.etag}
        asked = command.headers.get("range")
        start = 0
        if asked and not self.ignore_range and command.headers.get("if-range") == self.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(self.content):
                return Opened(416, {})
            total = len(self.content)
            headers["content-range"] = f"bytes {start}-{total - 1}/{total}"
        self._left = self.content[start:]
        headers["content-length"] = str(self.length or len(self._left))
        return Opened(206 if "content-range" in headers else 200, headers)

    def read(self, _: Read) -> bytes:
        """Return the next bytes, or break the connection."""
        if self._budget is not None and self._budget <= 0:
            raise lost()
        size = self.chunk if self._budget is None else min(self.chunk, self._budget)
        chunk, self._left = self._left[:size], self._left[size:]
        if self._budget is not None:
            self._budget -= len(chunk)
        return chunk

    def by_hand(self, sends=None) -> ByHand:
        """Return a driver that uses this storage."""
        return ByHand(sends=sends or [SIGNED], opens=[self.open], reads=[self.read])


def fetch(by_hand: ByHand, to, **options) -> Path:
    """Download the object."""
    return by_hand.run(download(PATH, to, by_hand.settings(), **options))


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(p.name for p in folder.iterdir())


def test_only_the_file_is_left(tmp_path: Path) -> None:
    """The target has the object's bytes, and no other file is left."""
    target = tmp_path / "v.mp4"
    assert fetch(Cdn().by_hand(), target) == target
    assert target.read_bytes() == CONTENT
    assert names(tmp_path) == ["v.mp4"]


def test_a_directory_takes_the_objects_own_name(tmp_path: Path) -> None:
    """The target may be a `str` or a `Path`."""
    assert fetch(Cdn().by_hand(), str(tmp_path)) == tmp_path / "video.mp4"


def test_an_empty_object_is_an_empty_file(tmp_path: Path) -> None:
    """An object of 0 bytes is downloaded as any other."""
    assert fetch(Cdn(content=b"").by_hand(), tmp_path / "v").read_bytes() == b""
    assert names(tmp_path) == ["v"]


def test_progress_is_reported(tmp_path: Path) -> None:
    """`on_progress` gets the bytes so far and the total, after each chunk."""
    told = []
    fetch(Cdn(chunk=500).by_hand(), tmp_path / "v", on_progress=lambda *a: told.append(a))
    assert told == [(500, 1024), (1000, 1024), (1024, 1024)]


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    """If the file exists, nothing is sent."""
    target = tmp_path / "v.mp4"
    target.write_bytes(b"mine")
    by_hand = Cdn().by_hand()
    with pytest.raises(TargetExistsError) as caught:
        fetch(by_hand, target)
    assert isinstance(caught.value, FileExistsError)
    assert not by_hand.of(Send)
    assert target.read_bytes() == b"mine"
    fetch(Cdn().by_hand(), target, overwrite=True)
    assert target.read_bytes() == CONTENT


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path: Path, monkeypatch) -> None:
    """The file is synced before it is renamed: after a power cut it is complete or absent."""
    events = []
    real_fsync, real_link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(os, "link", lambda *paths: (events.append("link"), real_link(*paths)))
    fetch(Cdn().by_hand(), tmp_path / "v")
    assert events == ["fsync", "link", "fsync"]


def test_a_target_that_appears_meanwhile_is_safe(tmp_path: Path) -> None:
    """A file that appears during the download is not replaced."""
    target = tmp_path / "v.mp4"
    with pytest.raises(TargetExistsError):
        fetch(Cdn().by_hand(), target, on_progress=lambda *_: target.write_bytes(b"theirs"))
    assert target.read_bytes() == b"theirs"


def test_without_hard_links_the_target_is_safe_too(tmp_path: Path, monkeypatch) -> None:
    """If the file system cannot link, the target is checked again before the rename."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "v.mp4"
    assert fetch(Cdn().by_hand(), target).read_bytes() == CONTENT
    target.unlink()
    with pytest.raises(TargetExistsError):
        fetch(Cdn().by_hand(), target, on_progress=lambda *_: target.write_bytes(b"theirs"))
    assert target.read_bytes() == b"theirs"


@pytest.mark.parametrize("name", ["..", ".", "a\\b", "c:d", "e\x00f", "con?"])
def test_an_object_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    """The name of an object cannot lead out of the target directory."""
    by_hand = Cdn().by_hand()
    with pytest.raises(InvalidArgumentError):
        by_hand.run(download(f"outputs/{name}", tmp_path, by_hand.settings()))
    assert not by_hand.of(Open)
    assert names(tmp_path) == []


@pytest.mark.parametrize("to", ["nowhere/v.mp4", "nowhere/"])
def test_a_missing_directory_is_an_error(tmp_path: Path, to: str) -> None:
    """No directory is created, and nothing is sent."""
    by_hand = Cdn().by_hand()
    with pytest.raises(InvalidArgumentError, match="no directory"):
        fetch(by_hand, f"{tmp_path}/{to}")
    assert not by_hand.of(Send)


def test_a_broken_transfer_is_resumed(tmp_path: Path) -> None:
    """The rest is requested with `Range` and, to detect changes, `If-Range` with the ETag."""
    cdn = Cdn()
    cdn.break_after = [300, 200]
    by_hand = cdn.by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert [dict(o.headers) for o in by_hand.of(Open)] == [
        {},
        {"range": "bytes=300-", "if-range": '"a"'},
        {"range": "bytes=500-", "if-range": '"a"'},
    ]
    assert len(by_hand.of(Send)) == 1


@pytest.mark.parametrize("etag", [None, 'W/"a"'])
def test_without_a_strong_etag_it_starts_over(tmp_path: Path, etag: str | None) -> None:
    """Without one, two ranges may be of different versions (RFC 9110, 13.1.5)."""
    cdn = Cdn(etag=etag)
    cdn.break_after = [300]
    by_hand = cdn.by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert [dict(o.headers) for o in by_hand.of(Open)] == [{}, {}]


def test_another_process_resumes(tmp_path: Path) -> None:
    """It keeps the bytes that an earlier process received."""
    cdn = Cdn()
    cdn.break_after = [300, 0, 0]
    with pytest.raises(DownloadError) as caught:
        fetch(cdn.by_hand(), tmp_path / "v")
    assert caught.value.received == 300
    assert names(tmp_path) == ["v.part", "v.part.json"]
    assert "secret" not in (tmp_path / "v.part.json").read_text()
    by_hand = Cdn().by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert by_hand.of(Open)[0].headers["range"] == "bytes=300-"
    assert names(tmp_path) == ["v"]


def test_a_whole_part_costs_one_more_byte(tmp_path: Path) -> None:
    """If a process was killed before the rename, the next one fetches only the last byte."""
    (tmp_path / "v.part").write_bytes(CONTENT)
    (tmp_path / "v.part.json").write_text(json.dumps({"path": PATH, "etag": '"a"', "total": 1024}))
    by_hand = Cdn().by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert by_hand.of(Open)[0].headers["range"] == "bytes=1023-"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "not json",
        "[]",
        '{"path": "another/object.mp4", "etag": "\\"a\\"", "total": 1024}',
        '{"path": "ai-talking-videos/p/outputs/video.mp4", "etag": null, "total": 1024}',
        '{"path": "ai-talking-videos/p/outputs/video.mp4", "etag": "\\"a\\"", "total": "many"}',
    ],
)
def test_a_part_of_something_else_is_not_resumed(tmp_path: Path, note: str) -> None:
    """Only a part whose origin is known is resumed."""
    (tmp_path / "v.part").write_bytes(b"x" * 300)
    (tmp_path / "v.part.json").write_text(note)
    by_hand = Cdn().by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert by_hand.of(Open)[0].headers == {}


def test_an_object_that_changed_starts_over(tmp_path: Path) -> None:
    """Two versions of an object are never mixed."""
    cdn = Cdn()
    cdn.break_after = [300]
    newer = CONTENT[::-1]

    def change(*_: object) -> None:
        cdn.content, cdn.etag = newer, '"b"'

    assert fetch(cdn.by_hand(), tmp_path / "v", on_progress=change).read_bytes() == newer


@pytest.mark.parametrize(
    "answer",
    [
        Opened(206, {"content-range": "bytes 0-1023/1024", "etag": '"a"'}),
        Opened(206, {"content-range": "bytes 300-1023/1024", "etag": '"b"'}),
        Opened(206, {"content-range": "bytes 300-1023/2000", "etag": '"a"'}),
        Opened(206, {"etag": '"a"'}),
    ],
)
def test_a_range_that_does_not_fit_is_not_appended(tmp_path: Path, answer: Opened) -> None:
    """Another range, object or size than requested is not appended to the part."""
    cdn = Cdn()
    cdn.break_after = [300]

    def lie(_: Open) -> Opened:
        cdn._left, cdn._budget = b"?" * 724, None
        return answer

    served = iter([cdn.open, lie])
    by_hand = cdn.by_hand()
    by_hand.opens = [lambda command: next(served, cdn.open)(command)]  # noqa: PLW0108 - another each time
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT


def test_a_416_starts_over(tmp_path: Path) -> None:
    """The object is now shorter than the part."""
    cdn = Cdn(content=CONTENT[:200])
    (tmp_path / "v.part").write_bytes(CONTENT[:600])
    (tmp_path / "v.part.json").write_text(json.dumps({"path": PATH, "etag": '"a"', "total": None}))
    assert fetch(cdn.by_hand(), tmp_path / "v").read_bytes() == CONTENT[:200]


@pytest.mark.parametrize("status", [401, 403, 410])
def test_an_expired_url_is_signed_again(tmp_path: Path, status: int) -> None:
    """Also in the middle of a download: the rest comes from a new URL."""
    cdn = Cdn()
    cdn.break_after = [300]
    cdn.answers = [Opened(200, {}), Opened(status, {})]
    by_hand = cdn.by_hand([SIGNED, SignedUrl(signed_url=URL + "2")])
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert [o.url for o in by_hand.of(Open)] == [URL, URL, URL + "2"]
    assert by_hand.of(Open)[-1].headers["range"] == "bytes=300-"


def test_a_fresh_url_that_is_refused_is_an_error(tmp_path: Path) -> None:
    """The URL is signed again once only."""
    cdn = Cdn()
    cdn.answers = [Opened(403, {})] * 9
    by_hand = cdn.by_hand()
    with pytest.raises(APIStatusError, match="403"):
        fetch(by_hand, tmp_path / "v")
    assert len(by_hand.of(Send)) == 2
    assert names(tmp_path) == []


def test_a_missing_object_is_not_found(tmp_path: Path) -> None:
    """A 404 of the API and one of storage raise the same error, without a retry."""
    for by_hand in (Cdn().by_hand([answered(404)]), ByHand(sends=[SIGNED], opens=[Opened(404, {})])):
        with pytest.raises(NotFoundError):
            fetch(by_hand, tmp_path / "v")
        assert names(tmp_path) == []
        assert by_hand.slept == []


def test_storage_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A 5xx, a 429 and a lost connection are retried, after the pause that storage asks for."""
    cdn = Cdn()
    cdn.answers = [Opened(503, {}), Opened(429, {}, retry_after=11)]
    by_hand = cdn.by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert by_hand.slept == [0.25, 11]


def test_failures_in_a_row_end_it(tmp_path: Path) -> None:
    """The error says how many bytes are kept, and has the last failure."""
    cdn = Cdn()
    cdn.break_after = [300, 0, 0, 0]
    with pytest.raises(DownloadError, match="3 failures in a row") as caught:
        fetch(cdn.by_hand(), tmp_path / "v")
    assert caught.value.error is caught.value.__cause__


def test_progress_forgives_failures(tmp_path: Path) -> None:
    """The count of failures restarts whenever bytes arrive."""
    cdn = Cdn()
    cdn.break_after = [100] * 10
    assert fetch(cdn.by_hand(), tmp_path / "v").read_bytes() == CONTENT


def test_a_short_response_is_not_a_file(tmp_path: Path) -> None:
    """If a body ends early, the rest is requested."""
    cdn = Cdn()
    cdn.length = 2000
    with pytest.raises(DownloadError, match="1024 of 2000 bytes"):
        fetch(cdn.by_hand(), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_long_response_is_not_a_file(tmp_path: Path) -> None:
    """A body longer than announced is not the object."""
    cdn = Cdn()
    cdn.length = 1000
    with pytest.raises(DownloadError, match="more than the 1000 bytes"):
        fetch(cdn.by_hand(), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_compressed_response_is_refused(tmp_path: Path) -> None:
    """The ranges and lengths of a compressed body are not those of the object."""
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(200, {"content-encoding": "gzip"})])
    with pytest.raises(DownloadError, match="compressed"):
        fetch(by_hand, tmp_path / "v")


def test_a_web_page_is_not_the_object(tmp_path: Path) -> None:
    """A firewall or a login answers 200; its page was saved as the video."""
    page = Opened(200, {"content-type": "Text/HTML; charset=utf-8", "content-length": "5"})
    with pytest.raises(DownloadError, match="web page instead of the object"):
        fetch(ByHand(sends=[SIGNED], opens=[page]), tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_redirects_are_followed_where_they_are_safe(tmp_path: Path) -> None:
    """Storage may redirect a few times, but not to plain http on another machine."""
    cdn = Cdn()
    cdn.answers = [Opened(302, {"location": "/elsewhere?signature=s"})]
    by_hand = cdn.by_hand()
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    assert by_hand.of(Open)[-1].url == "https://cdn.example.com/elsewhere?signature=s"

    cdn.answers = [Opened(302, {"location": "http://evil.example.com/"})]
    with pytest.raises(APIResponseError, match="plain http"):
        fetch(cdn.by_hand(), tmp_path / "w")
    cdn.answers = [Opened(302, {"location": "/round"})] * 99
    with pytest.raises(DownloadError, match="redirected more than 5 times"):
        fetch(cdn.by_hand(), tmp_path / "w")


@pytest.mark.parametrize(
    "url", ["http://cdn.example.com/v", "ftp://cdn.example.com/v", "", None, 7, "https://"]
)
def test_a_signed_url_must_be_safe(tmp_path: Path, url) -> None:
    """It must be https, unless it is loopback or `allow_http` is set."""
    by_hand = Cdn().by_hand([SignedUrl(signed_url=url)])
    with pytest.raises(APIResponseError):
        fetch(by_hand, tmp_path / "v")
    assert not by_hand.of(Open)


def test_plain_http_can_be_allowed(tmp_path: Path) -> None:
    """It is allowed for loopback, and elsewhere with `allow_http`."""
    by_hand = Cdn().by_hand([SignedUrl(signed_url="http://127.0.0.1:8000/v")])
    assert fetch(by_hand, tmp_path / "v").read_bytes() == CONTENT
    by_hand = Cdn().by_hand([SignedUrl(signed_url="http://mock:8000/v")])
    fetched = by_hand.run(download(PATH, tmp_path / "w", by_hand.settings(allow_http=True)))
    assert fetched.read_bytes() == CONTENT


def test_the_deadline_bounds_the_whole(tmp_path: Path) -> None:
    """Each read gets the time that is left, and received bytes are kept."""
    cdn = Cdn()
    by_hand = cdn.by_hand()

    def slow(command: Read) -> bytes:
        by_hand.clock.now += 4
        return cdn.read(command)

    by_hand.reads = [slow]
    with pytest.raises(DownloadError, match="deadline") as caught:
        fetch(by_hand, tmp_path / "v", timeout=10)
    assert [read.timeout for read in by_hand.of(Read)] == [10, 6, 2]
    assert caught.value.received == 300


def test_a_deadline_reports_the_last_failure(tmp_path: Path) -> None:
    """If the time runs out while storage fails, the error has that failure and its pause."""
    by_hand = Cdn().by_hand()
    by_hand.opens = [Opened(503, {}, 4.0)]
    with pytest.raises(DownloadError, match="503") as caught:
        fetch(by_hand, tmp_path / "v", timeout=9.995)
    assert caught.value.error is not None
    assert (caught.value.error.status_code, caught.value.retry_after) == (503, 4.0)


class WakesLate(ByHand):
    """A clock on a busy machine, where each sleep takes one second longer."""

    def _carry_out(self, command):
        if isinstance(command, Sleep):
            self.clock.now += 1.0
        return super()._carry_out(command)


@pytest.mark.parametrize("left", [-0.1, 0.0, 0.005])
def test_a_deadline_during_the_pause_reports_the_last_failure(tmp_path: Path, left: float) -> None:
    """If the pause ends too late for another attempt, the error is the last failure."""
    by_hand = WakesLate(sends=[SIGNED], opens=[Opened(503, {}, 4.0)])
    with pytest.raises(DownloadError, match="503") as caught:
        fetch(by_hand, tmp_path / "v", timeout=5.0 + left)
    assert caught.value.error is not None
    assert (caught.value.error.status_code, caught.value.retry_after) == (503, 4.0)


def test_a_hanging_progress_callback_ends_with_the_download(tmp_path: Path) -> None:
    """The error says how many bytes were received."""
    by_hand = Cdn().by_hand()

    def hangs(*_: object) -> None:
        by_hand.clock.now += 10
        raise TimeoutError

    with pytest.raises(DownloadError, match="deadline") as caught:
        fetch(by_hand, tmp_path / "v", on_progress=hangs, timeout=10)
    assert caught.value.received == 100


def test_a_failure_before_new_bytes_is_forgotten(tmp_path: Path) -> None:
    """If bytes arrived after a failure, a later timeout does not report that failure."""
    cdn = Cdn()
    by_hand = cdn.by_hand()

    def slow(command: Read) -> bytes:
        by_hand.clock.now += 4
        return cdn.read(command)

    by_hand.opens, by_hand.reads = [lost(), cdn.open], [slow]
    with pytest.raises(DownloadError, match="deadline") as caught:
        fetch(by_hand, tmp_path / "v", timeout=10)
    assert (caught.value.error, caught.value.received > 0) == (None, True)


@pytest.mark.parametrize(
    "answers",
    [{"sends": [lambda _: answered(404)]}, {"sends": [SIGNED], "opens": [Opened(404, {})]}],
    ids=["not signed", "not in storage"],
)
def test_a_video_that_is_not_there_yet(tmp_path: Path, answers) -> None:
    """Only for a job's video, the error says that it may still appear."""
    job = Job(JOB_ID, PROJECT_ID)
    by_hand = ByHand(**answers)
    with pytest.raises(NotFoundError, match=r"does not exist yet\. Wait for it with jobs\.wait") as caught:
        by_hand.run(download_video(job, tmp_path / "v", by_hand.settings()))
    assert caught.value.job is job
    by_hand = ByHand(**answers)
    with pytest.raises(NotFoundError) as caught:
        fetch(by_hand, tmp_path / "v")
    assert (caught.value.job, "yet" in str(caught.value)) == (None, False)
    by_hand = ByHand(**answers)
    video = Video(job, Signed(PATH, URL))
    with pytest.raises(NotFoundError) as caught:
        by_hand.run(download_video(video, tmp_path / "v", by_hand.settings()))
    assert "yet" not in str(caught.value)


def test_two_downloads_of_one_target_do_not_mix(tmp_path: Path) -> None:
    """The second one gets an error, and the first one continues."""
    refusals = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(DownloadError, match="another download") as caught:
            fetch(Cdn().by_hand(), tmp_path / "v")
        refusals.append(caught.value)

    assert fetch(Cdn().by_hand(), tmp_path / "v", on_progress=meanwhile).read_bytes() == CONTENT
    assert refusals


def test_a_part_file_that_was_put_in_place_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    """Another download may rename the part file after it was opened and before it was locked."""
    part = tmp_path / "v.part"
    part.write_bytes(CONTENT)
    real_open = os.open

    def race(path, *args):
        descriptor = real_open(path, *args)
        if Path(path) == part and part.exists():
            part.rename(tmp_path / "v")
        return descriptor

    monkeypatch.setattr(os, "open", race)
    with pytest.raises(DownloadError, match="just finished"):
        PartFile(PATH, tmp_path / "v", overwrite=True).open()
    assert (tmp_path / "v").read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["v.part", "v.part.json"])
def test_a_planted_link_is_not_followed(tmp_path: Path, name: str) -> None:
    """A link with the name of the part file or its metadata cannot redirect the bytes to another file."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / name).symlink_to(victim)
    with pytest.raises(InvalidArgumentError, match="is a symbolic link"):
        fetch(Cdn().by_hand(), tmp_path / "v")
    assert victim.read_bytes() == b"precious"


def test_only_files_are_replaced(tmp_path: Path) -> None:
    """`overwrite=True` does not replace a pipe or a device."""
    os.mkfifo(tmp_path / "pipe")
    by_hand = Cdn().by_hand()
    with pytest.raises(InvalidArgumentError, match="regular"):
        fetch(by_hand, tmp_path / "pipe", overwrite=True)
    assert not by_hand.of(Send)


def test_somebody_elses_part_file_survives_a_failure(tmp_path: Path) -> None:
    """An existing part is kept until bytes of a new one arrive."""
    (tmp_path / "v.part").write_bytes(b"a browser's")
    with pytest.raises(NotFoundError):
        fetch(Cdn().by_hand([answered(404)]), tmp_path / "v")
    assert (tmp_path / "v.part").read_bytes() == b"a browser's"


def test_an_end_that_nobody_announced_proves_nothing(tmp_path: Path) -> None:
    """Without a length or chunks, a lost connection looks like the end of the file."""
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(200, {})], reads=[b"x", b""])
    with pytest.raises(DownloadError, match="storage sent no length"):
        fetch(by_hand, tmp_path / "v")
    by_hand = ByHand(sends=[SIGNED], opens=[Opened(200, {"transfer-encoding": "chunked"})], reads=[b"x", b""])
    assert fetch(by_hand, tmp_path / "v").read_bytes() == b"x"


def test_an_etag_that_is_no_header_value_is_not_used(tmp_path: Path) -> None:
    """It could not be sent in `If-Range`."""
    cdn = Cdn(etag='"ü"')
    cdn.break_after = [300]
    assert fetch(cdn.by_hand(), tmp_path / "v").read_bytes() == CONTENT


def test_a_path_that_is_a_url_is_not_repeated_whole(tmp_path: Path) -> None:
    """If a signed URL is passed as a path, its signature is not in the error or the log."""
    by_hand = Cdn().by_hand()
    with pytest.raises(InvalidArgumentError) as caught:
        by_hand.run(download(str(URL), tmp_path / "v", by_hand.settings()))
    assert "secret" not in str(caught.value)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    """The error has the system's message, and the target does not exist."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    part = PartFile(PATH, tmp_path / "v", overwrite=False)
    part.open()
    with Path("/dev/full").open("r+b", buffering=0) as full:
        part._file, kept = full, part._file
        with pytest.raises(DownloadError, match="No space left"):
            part.write(b"x")
        part._file = kept
    part.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/./b", "a\nb", "a\x00b", "a\ud800", None, 7])
def test_a_storage_path_means_itself(tmp_path: Path, path) -> None:
    """A path that would mean another object, or none, is refused before it is sent."""
    by_hand = Cdn().by_hand()
    with pytest.raises(InvalidArgumentError):
        by_hand.run(download(path, tmp_path / "v", by_hand.settings()))
    assert by_hand.commands == []
