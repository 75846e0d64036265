from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from gex_pipeline.errors import GexError, MissingExtraError, Reason, TransientError
from gex_pipeline.summarize.backends import backend
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, request_digest
from gex_pipeline.summarize.settings import SummarizerSettings
from tests.summarize.chat_server import ChatServer, Reply, captions_of, joined_captions
from tests.summarize.stories import RIDE, many, request

Serve = Callable[..., ChatServer]


def settings(url: str, **change: object) -> SummarizerSettings:
    values: dict[str, object] = {"timeout_s": 10, "max_retries": 1, "max_in_flight": 4, "api_key_env": "GEX_TEST_KEY"}
    return SummarizerSettings(backend="http", model="m", url=url, **{**values, **change})


def ask(requests: list[SummaryRequest], chosen: SummarizerSettings) -> dict[str, SummaryAnswer]:
    answers = list(backend(chosen).answer(requests, chosen))
    assert len({answer.key for answer in answers}) == len(answers)
    return {answer.key: answer for answer in answers}


def test_every_request_gets_its_own_answer_though_they_arrive_out_of_order(serve: Serve) -> None:
    delays = itertools.cycle([0.05, 0.0, 0.02])
    server = serve(lambda body: replace(joined_captions(body), delay_s=next(delays)))
    requests, chosen = many(40), settings(server.url)
    answers = ask(requests, chosen)
    for item in requests:
        answer = answers[item.key]
        assert (answer.source_digest, answer.request_digest) == (item.source_digest, request_digest(item, chosen))
        assert answer.raw_text.startswith(item.captions[0])
        assert answer.raw_text.endswith(" ".join(item.captions[-1].split()[:7]) + ".")
        assert (answer.error, answer.finish, answer.num_prompt_tokens, answer.num_generated_tokens) == (
            None,
            "stop",
            100,
            12,
        )
        assert answer.seconds > 0
    assert 2 <= server.open_most <= 4


def test_the_server_gets_model_messages_sampling_and_key(serve: Serve) -> None:
    server = serve()
    ask([request()], settings(server.url, max_tokens=50))
    body, headers = server.bodies[0], server.headers[0]
    assert body["model"] == "m"
    assert captions_of(body) == list(RIDE)
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.0, 50, 1.0)
    assert headers["authorization"] == "Bearer sk-secret-4711"
    assert headers["x-request-id"].startswith("gex-")


def test_a_server_that_fails_once_is_asked_again(serve: Serve) -> None:
    replies = iter([Reply("down", status=500), Reply("busy", status=429)])
    server = serve(lambda body: next(replies, joined_captions(body)))
    assert ask([request()], settings(server.url, max_retries=2))["k0"].error is None
    assert len(server.bodies) == 3


def test_a_request_that_always_fails_costs_only_itself(serve: Serve) -> None:
    def reply(body: dict) -> Reply:
        return Reply("boom", status=500) if "number 3 " in captions_of(body)[-1] else joined_captions(body)

    answers = ask(many(8), settings(serve(reply).url))
    assert answers["k3"].error_kind == Reason.engine_error
    assert "boom" in (answers["k3"].error or "")
    assert [key for key, answer in answers.items() if answer.error] == ["k3"]


def test_an_over_long_prompt_is_known_from_the_servers_words(serve: Serve) -> None:
    text = "This model's maximum context length is 512 tokens. However, you requested 600 tokens."
    server = serve(lambda _: Reply(text, status=400))
    answer = ask([request()], settings(server.url))["k0"]
    assert answer.error_kind == Reason.prompt_too_long
    assert len(server.bodies) == 1  # the same prompt would be too long again
    other = ask([request()], settings(serve(lambda _: Reply("bad top_p", status=400)).url))["k0"]
    assert other.error_kind == Reason.engine_error


def test_a_slow_answer_is_no_answer(serve: Serve) -> None:
    server = serve(lambda body: replace(joined_captions(body), delay_s=1.0 if captions_of(body) == list(RIDE) else 0.0))
    answer = ask([request()], settings(server.url, timeout_s=0.2, max_retries=0))["k0"]
    assert (answer.error_kind, answer.error) == (Reason.no_answer, "no answer within 0.2 s")


def test_an_answer_that_comes_in_drops_is_no_answer_and_is_asked_for_again(serve: Serve) -> None:
    """Each drop came within the limit, so a server could hold a request for as long as it liked."""
    asked: list[float] = []

    def reply(body: dict) -> Reply:
        trickles = captions_of(body) == list(RIDE)
        if trickles:
            asked.append(time.monotonic())
        return replace(joined_captions(body), trickle_s=0.2 if trickles else 0.0)

    server = serve(reply)
    answer = ask([request()], settings(server.url, timeout_s=0.5, max_retries=1))["k0"]
    assert (answer.error_kind, answer.error) == (Reason.no_answer, "no answer within 0.5 s")
    assert len(asked) == 2
    assert answer.seconds > 0.9  # two tries of half a second each


@pytest.mark.parametrize(
    "bad",
    [
        Reply(body="{not json"),
        Reply(body="<html>sorry</html>", headers={"Content-Type": "text/html"}),
        Reply(body="[]"),
        Reply(body="{}"),
        Reply(body='{"id": "x", "choices": []}'),
        Reply(body='{"id": "x", "choices": [{"index": 0}]}'),
        Reply(body='{"id": "x", "choices": {"a": 1}}'),
        Reply(body="null"),
        Reply(body=""),
        Reply(body=Reply("a dog").encoded().decode()[:80]),
        Reply(body=Reply("a dog").encoded().decode().replace("100", '"many"')),
        Reply(body='data: {"id": "x"}\n\ndata: [DONE]\n\n', headers={"Content-Type": "text/event-stream"}),
        Reply("a dog runs over the road", sent_bytes=90),
    ],
)
def test_garbage_instead_of_a_completion_is_an_error_of_one_row(serve: Serve, bad: Reply) -> None:
    def reply(body: dict) -> Reply:
        return bad if "number 1 " in captions_of(body)[-1] else joined_captions(body)

    answers = ask(many(3), settings(serve(reply).url, max_retries=0))
    assert answers["k1"].error_kind == Reason.engine_error
    assert answers["k0"].error is None
    assert answers["k2"].error is None


def test_an_answer_without_end_is_not_read_to_it(serve: Serve) -> None:
    """Of a gigabyte that a few kilobytes unpack to, sixteen at a time filled the memory, and then the cache."""
    server = serve(lambda body: Reply("a" * 5_000_000) if captions_of(body) == list(RIDE) else joined_captions(body))
    answer = ask([request()], settings(server.url, max_retries=0))["k0"]
    assert answer.error_kind == Reason.engine_error
    assert "an answer of more than 4,194,304 bytes" in answer.error
    assert answer.raw_text == ""
    assert server.headers[0]["accept-encoding"] == "identity"


def test_a_key_that_the_server_repeats_is_not_passed_on(serve: Serve) -> None:
    server = serve(lambda _: Reply("you sent Bearer sk-secret-4711", status=400))
    assert "you sent Bearer ***" in (ask([request()], settings(server.url))["k0"].error or "")


def test_a_server_that_answers_twice_does_not_answer_the_next_request_with_the_second(serve: Serve) -> None:
    """On a connection that was kept, every second request got the summary of the text before it."""
    server = serve(lambda body: replace(joined_captions(body), times=2))
    answers = ask(many(6), settings(server.url, max_in_flight=1))
    for item in many(6):
        assert answers[item.key].raw_text.startswith(item.captions[0]), item.key
        assert answers[item.key].raw_text.endswith(" ".join(item.captions[-1].split()[:7]) + "."), item.key
    assert {headers["connection"] for headers in server.headers} == {"close"}


def test_a_refusal_beside_the_text_is_read_and_an_answer_a_filter_cut_counts_as_cut(serve: Serve) -> None:
    def reply(body: dict) -> Reply:
        message = json.loads(Reply("a man rides on a").encoded())
        if "number 0 " in captions_of(body)[-1]:
            message["choices"][0]["message"] |= {"content": None, "refusal": "I cannot help with that."}
        else:
            message["choices"][0]["finish_reason"] = "content_filter"
        return Reply(body=json.dumps(message))

    answers = ask(many(2), settings(serve(reply).url))
    assert (answers["k0"].raw_text, answers["k0"].finish) == ("I cannot help with that.", "stop")
    assert (answers["k1"].raw_text, answers["k1"].finish) == ("a man rides on a", "length")


@pytest.mark.parametrize("where", ["id", "header"])
def test_an_answer_that_carries_another_requests_id_is_an_error(serve: Serve, where: str) -> None:
    other = "gex-" + "0" * 32
    change = {"id": f"chatcmpl-{other}"} if where == "id" else {"headers": {"X-Request-Id": other}}
    answer = ask([request()], settings(serve(lambda body: replace(joined_captions(body), **change)).url))["k0"]
    assert answer.error_kind == Reason.engine_error
    assert f"carries id {other}" in (answer.error or "")


def test_a_server_that_repeats_our_id_or_has_its_own_is_fine(serve: Serve) -> None:
    chosen = settings("http://127.0.0.1:1/v1")
    ours = f"gex-{request_digest(request(), chosen)[:32]}"
    for change in ({"id": f"chatcmpl-{ours}"}, {"headers": {"X-Request-Id": "req_77"}}):
        server = serve(lambda body, change=change: replace(joined_captions(body), **change))
        assert ask([request()], settings(server.url))["k0"].error is None


def test_an_answer_cut_by_the_token_limit_says_so(serve: Serve) -> None:
    server = serve(lambda body: replace(joined_captions(body), finish="length"))
    assert ask([request()], settings(server.url))["k0"].finish == "length"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the key in GEX_TEST_KEY"),
        (403, "does not allow this with the key in GEX_TEST_KEY"),
        (404, "knows no model 'm', or the path of the URL is wrong"),
    ],
)
def test_what_every_request_would_fail_on_ends_the_run_without_showing_the_key(
    serve: Serve, status: int, words: str
) -> None:
    server = serve(lambda _: Reply("wrong key sk-secret-4711", status=status))
    chosen = settings(server.url)
    with pytest.raises(GexError, match=words) as caught:
        ask(many(50), chosen)
    assert "sk-secret" not in str(caught.value)
    assert len(server.bodies) < 20


@pytest.mark.parametrize("status", [301, 303, 307])
def test_a_server_that_sends_elsewhere_is_not_followed(serve: Serve, status: int) -> None:
    """Captions were sent to whatever address a server named, and what answered there was in the tables."""
    elsewhere = serve(lambda _: Reply("inner words", status=500))
    server = serve(lambda _: Reply(status=status, headers={"Location": f"{elsewhere.url}/chat/completions"}))
    with pytest.raises(GexError, match=r"sends elsewhere; put the address that answers into url \(HTTP 30"):
        ask([request()], settings(server.url, max_retries=0))
    assert elsewhere.bodies == []


def test_a_refused_connection_is_no_fault_of_the_text_and_ends_the_run_at_once_when_it_lasts() -> None:
    """Four texts were once rejected for good, and nothing published, because a server was not up yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    chosen = settings(url, max_retries=0, api_key_env="")
    with pytest.raises(TransientError, match=r"connection failed: .*; look after the server and run again"):
        ask([request()], chosen)
    with pytest.raises(TransientError, match=r"8 requests in a row .* look after the server and run again"):
        ask(many(50), chosen)


@pytest.mark.parametrize("num_texts", [1, 3, 60])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Reply("Rate limit reached", status=429), "HTTP 429: Rate limit reached"),
        (Reply("the server had an error", status=500), "HTTP 500: the server had an error"),
        (Reply(status=502, body="<html>\nBad\tGateway</html>"), "HTTP 502: <html> Bad Gateway</html>"),
        (Reply("no healthy upstream", status=503, headers={"Retry-After": "7200"}), r"upstream \(Retry-After: 7200\)"),
        (Reply(delay_s=1.0), r"no answer within 0.2 s"),
        (
            Reply(body="<html>\nlogin, sk-secret-4711</html>", headers={"Content-Type": "text/html"}),
            r"HTTP 200 without a chat completion \(no choices\): <html> login, \*\*\*</html>",
        ),
        (Reply(body="<html>login</html>"), r"HTTP 200 without a chat completion \(Expecting value: .*\): <html>login"),
        (Reply(body='{"error": "who are you?"}'), r"HTTP 200 without .* \(no choices\): {\"error\": \"who are you"),
        (Reply(body=""), r"HTTP 200 without a chat completion \(.*\): no words"),
    ],
)
def test_a_server_that_answers_nothing_is_no_fault_of_the_texts(
    serve: Serve, bad: Reply, words: str, num_texts: int
) -> None:
    """Behind a proxy, a server that was down cost every text of a run, which then ended with 0."""
    server = serve(lambda _: bad)
    chosen = settings(server.url, max_retries=0, timeout_s=0.2 if bad.delay_s else 10)
    with pytest.raises(TransientError, match=f"{words}.*; look after the server and run again") as caught:
        ask(many(num_texts), chosen)
    assert len(str(caught.value).splitlines()) == 1
    assert len(server.bodies) <= 8 + 4 + 1  # the limit, what was open then, and the question whether it answers at all


def test_texts_that_fail_in_a_row_cost_only_themselves_where_the_server_answers_another(serve: Serve) -> None:
    """Asked again, only failing texts are left, so that many in a row say nothing of the server."""

    def reply(body: dict) -> Reply:
        return Reply("boom", status=500) if "number " in captions_of(body)[-1] else joined_captions(body)

    server = serve(reply)
    answers = ask(many(30), settings(server.url, max_retries=0))
    assert {answer.error for answer in answers.values()} == {"HTTP 500: boom"}
    assert {answer.error_kind for answer in answers.values()} == {Reason.engine_error}
    assert len(server.bodies) < 30 + 8  # a question for each eight failures, and at the end


def test_unreadable_answers_in_a_row_cost_only_their_texts_where_the_server_answers_another(serve: Serve) -> None:
    def reply(body: dict) -> Reply:
        return Reply(body="<html>no</html>") if "number " in captions_of(body)[-1] else joined_captions(body)

    answers = ask(many(10), settings(serve(reply).url))
    assert {answer.error_kind for answer in answers.values()} == {Reason.engine_error}
    assert all((answer.error or "").endswith("): <html>no</html>") for answer in answers.values())


def test_a_proxy_page_is_said_to_have_been_asked_for_once_a_request(serve: Serve) -> None:
    server = serve(lambda _: Reply(body="<html>login</html>"))
    with pytest.raises(TransientError, match=r"requests in a row with 1 try each; look after the server and run again"):
        ask(many(20), settings(server.url, max_retries=1))


def test_a_text_that_met_a_busy_server_is_asked_again_by_the_next_run(serve: Serve) -> None:
    def reply(body: dict) -> Reply:
        return Reply("slow down", status=429) if "number 3 " in captions_of(body)[-1] else joined_captions(body)

    chosen = settings(serve(reply).url, max_retries=0)
    answers = backend(chosen).answer(many(40), chosen)
    came = [next(answers) for _ in range(40)]
    assert [answer.key for answer in came if answer.error] == ["k3"]
    with pytest.raises(TransientError, match=r"HTTP 429: slow down; look after the server and run again"):
        next(answers)


def test_a_quota_that_is_used_up_ends_the_run_at_once(serve: Serve) -> None:
    error = {
        "message": "You exceeded your quota, sk-secret-4711",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
    server = serve(lambda _: Reply(status=429, body=json.dumps({"error": error})))
    with pytest.raises(
        GexError, match=r"the quota of the key in GEX_TEST_KEY is used up: insufficient_quota \(HTTP 429\)"
    ) as caught:
        ask(many(200), settings(server.url, max_retries=0))
    assert not caught.value.transient
    assert "sk-secret" not in str(caught.value)
    assert len(server.bodies) <= 4


def test_a_servers_words_are_passed_on_in_one_bounded_line_without_the_key(serve: Serve) -> None:
    said = "busy\r\n\x1b key sk-secret-4711 or sk-secr*** " + "x" * 5000
    server = serve(lambda _: Reply(said, status=503))
    with pytest.raises(TransientError, match="HTTP 503: busy") as caught:
        ask([request()], settings(server.url, max_retries=0))
    message = str(caught.value)
    assert "sk-sec" not in message
    assert message.isprintable()
    assert len(message) < 500


def test_the_server_says_how_long_to_wait(serve: Serve) -> None:
    replies = iter([Reply("busy", status=429, headers={"retry-after-ms": "700"})])
    server = serve(lambda body: next(replies, joined_captions(body)))
    started_s = time.monotonic()
    assert ask([request()], settings(server.url))["k0"].error is None
    assert time.monotonic() - started_s >= 0.7


def test_a_caller_that_stops_listening_ends_the_open_requests(serve: Serve) -> None:
    server = serve(lambda body: replace(joined_captions(body), delay_s=0 if len(server.bodies) < 3 else 60))
    chosen = settings(server.url)
    answers = backend(chosen).answer(many(30), chosen)
    next(iter(answers))
    started_s = time.monotonic()
    answers.close()
    assert time.monotonic() - started_s < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gex-http")]


def test_a_missing_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEX_TEST_KEY", raising=False)
    chosen = settings("http://127.0.0.1:1/v1")
    with pytest.raises(GexError, match="environment variable GEX_TEST_KEY is not set"):
        backend(chosen).check_ready(chosen)


@pytest.mark.parametrize("key", ["sk-sec-4711\nsk-other-0815", "sk-s\u00e9c-4711", "sk-sec 4711", "sk-sec\x004711"])
def test_a_key_that_no_header_can_hold_is_named_by_its_variable_and_not_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """What the client says of such a key repeats it, and that ended in messages and tables."""
    if "\0" in key:
        monkeypatch.setattr(os, "environ", {**os.environ, "GEX_TEST_KEY": key})  # the system's own cannot hold it
    else:
        monkeypatch.setenv("GEX_TEST_KEY", key)
    server = serve()
    with pytest.raises(GexError, match="environment variable GEX_TEST_KEY holds a line end, a space or") as caught:
        ask([request()], settings(server.url))
    assert "4711" not in str(caught.value).replace(server.url, "")
    assert "0815" not in str(caught.value)
    assert server.bodies == []


def test_what_a_server_that_speaks_no_http_sends_back_is_shown_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport quotes the line that it cannot read."""
    monkeypatch.setenv("GEX_TEST_KEY", "sk-secret-4711")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

        def repeat_the_key() -> None:
            connection, _ = listening.accept()
            listening.close()  # the question whether it answers anything is refused
            with connection:
                received = connection.recv(1 << 16)
                while b"\r\n\r\n" not in received:
                    received += connection.recv(1 << 16)
                connection.sendall(b"what is sk-secret-4711?\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        server = threading.Thread(target=repeat_the_key)
        server.start()
        with pytest.raises(TransientError, match=r"connection failed: .*what is") as caught:
            ask([request()], settings(url, max_retries=0))
        server.join()
    assert "sk-sec" not in str(caught.value)


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings("http://127.0.0.1:1/v1", api_key_env="")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "openai", raising=False)
    with pytest.raises(MissingExtraError, match=r"openai is not installed.*-c constraints.txt -e .\.\[http\]"):
        backend(chosen).check_ready(chosen)
