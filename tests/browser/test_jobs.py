"""Jobs: the list with its filters and actions, and the page of a job."""

import json
import re
import subprocess

from playwright.sync_api import BrowserContext, Page, Response, Route, expect

from testing.receiver import Receiver, status
from testing.stack import Stack
from tests.browser.actions import add_documents


def test_the_list_says_what_each_job_is_and_why_it_failed(page: Page, stack: Stack) -> None:
    good = stack.generate("When does the archive open?")["id"]
    bad = stack.generate("word " * 5000)["id"]
    for job in (good, bad):
        stack.ended(job)
    page.goto("/ui/jobs")
    row = page.locator(f"[data-job={good}]")
    expect(row).to_contain_text("When does the archive open?")
    expect(row).to_contain_text("Completed")
    expect(row).to_contain_text("echo")
    expect(row.locator(".tones")).to_be_visible()
    expect(row.locator("time")).to_have_attribute("title", re.compile("20[0-9][0-9]"))
    failed = page.locator(f"[data-job={bad}]")
    expect(failed.locator(".why")).to_contain_text("context")
    assert page.get_by_text(re.compile("Attempts|\\(1 attempts")).count() == 0

    page.get_by_role("button", name=re.compile("^Failed")).click()
    expect(row).to_have_count(0)
    expect(failed).to_be_visible()
    page.get_by_label("Kind").select_option("ingest")
    expect(failed).to_have_count(0)
    expect(page).to_have_url(re.compile(r"\?status=failed&kind=ingest$"))
    page.get_by_label("Kind").select_option("unpack")
    expect(page.get_by_text("No job matches")).to_be_visible()
    page.get_by_label("Kind").select_option("generate")
    page.reload()
    expect(failed).to_be_visible()
    # The whole row opens the job.
    failed.click(position={"x": 700, "y": 20})
    expect(page).to_have_url(re.compile(bad))
    expect(page.get_by_role("alert")).to_contain_text("prompt_too_long")
    page.go_back()
    expect(failed).to_be_visible()


def test_many_jobs_are_cancelled_retried_and_deleted_at_once(page: Page, stack: Stack) -> None:
    with stack.paused("gpu.echo"):
        jobs = [stack.generate(f"bulk job {number}")["id"] for number in range(3)]
        page.goto("/ui/jobs?status=queued")
        for number in range(3):
            page.get_by_label(f"Select bulk job {number}").check()
        selection = page.get_by_role("group", name="Selection")
        expect(selection).to_contain_text("3 selected")
        selection.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("3 jobs cancelled.")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Cancelled")).click()
    for number in range(3):
        page.get_by_label(f"Select bulk job {number}").check()
    selection.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("3 jobs started again.")).to_be_visible()
    for number in range(3):
        page.get_by_label(f"Select bulk job {number}").check()
    selection.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("3 jobs deleted.")).to_be_visible()
    assert [stack.client.get(f"/jobs/{job}").status_code for job in jobs] == [404] * 3


def test_a_cancelled_job_does_not_stay_stopping(page: Page, stack: Stack) -> None:
    """The answer of the cancellation arrives after the job has ended, as on a slow network."""

    def late(route: Route) -> None:
        answer = route.fetch()
        page.wait_for_timeout(400)
        route.fulfill(response=answer)

    job = stack.submit_long("A long answer. ")
    page.goto(f"/ui/jobs/{job}")
    expect(page.locator("#job-status")).to_have_text("Running")
    page.route("**/cancel", late)
    with page.expect_response("**/cancel"):
        page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#job-status")).to_have_text("Cancelled")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    expect(page.locator("#job-status")).to_have_text("Cancelled")


def test_a_job_shows_its_live_output_timeline_and_events(page: Page, stack: Stack) -> None:
    add_documents(stack, "hours", hours_txt="The archive is open on weekdays from nine to five.")
    job = stack.generate("When is the archive open?", collection="hours")["id"]
    page.goto(f"/ui/jobs/{job}")
    expect(page.get_by_role("heading", level=1)).to_have_text("When is the archive open?")
    expect(page.locator(".answer")).to_contain_text("archive")
    expect(page.locator("#job-status")).to_have_text("Completed")
    assert page.get_by_text("retrieving: 0 of 0").count() == 0
    lanes = page.get_by_role("region", name="Timeline").locator(".lane")
    expect(lanes).to_have_count(2)
    expect(lanes.nth(1).get_by_role("img")).to_have_attribute("aria-label", re.compile("Writing [0-9]"))
    page.get_by_role("tab", name=re.compile("Events")).click()
    expect(page.locator(".events li").first).to_contain_text("Queued")
    expect(page.locator(".events li").last).to_contain_text("Ended")
    expect(page).to_have_url(re.compile("tab=events"))
    page.get_by_role("tab", name="JSON").click()
    expect(page.locator(".raw")).to_contain_text(job)
    page.get_by_role("tab", name="Output").click()
    page.get_by_role("button", name=re.compile("hours.txt, page 1")).first.click()
    expect(page.get_by_role("complementary", name="Details").locator("mark")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Retry").click()
    expect(page).not_to_have_url(re.compile(job))
    # The button went with its job, and the keyboard goes on at the new one.
    expect(page.locator("main")).to_be_focused()
    expect(page.locator("#job-status")).to_have_text("Completed")


def test_ingests_and_batches_link_to_what_they_made(page: Page, stack: Stack) -> None:
    document = add_documents(stack, "links", note_txt="A note.")[0]
    ingest = stack.client.get(f"/documents/{document}").json()["job_id"]
    page.goto(f"/ui/jobs/{ingest}")
    page.get_by_role("link", name="note.txt").click()
    expect(page.get_by_role("complementary", name="Details").get_by_role("heading", level=2)).to_have_text("note.txt")
    batch = stack.job(ingest)["batch"]
    page.goto(f"/ui/jobs/{batch}")
    expect(page.get_by_role("progressbar", name="Jobs that ended")).to_have_attribute("value", "1")
    expect(page.locator(".facts").get_by_role("link", name="1 job")).to_have_attribute(
        "href", f"/ui/jobs?batch={batch}&status=completed"
    )
    page.get_by_role("link", name="Jobs of this batch").click()
    expect(page.locator(f"[data-job={ingest}]")).to_be_visible()
    expect(page.locator(".grid-row")).to_have_count(1)


def test_deliveries_are_shown_and_sent_again(page: Page, stack: Stack) -> None:
    with Receiver(status(500, b"out of order"), status(204)) as receiver:
        job = stack.generate("Tell my hook.", webhook={"url": receiver.url})["id"]
        page.goto(f"/ui/jobs/{job}?tab=deliveries")
        expect(page.get_by_text("Try 1: 500")).to_be_visible()
        expect(page.locator(".state", has_text="Retrying")).to_be_visible()
        expect(page.get_by_text("out of order")).to_be_visible()
        page.get_by_role("button", name="Redeliver").click()
        expect(page.locator(".state", has_text="Delivered")).to_be_visible()
        assert [json.loads(one.body)["data"]["id"] for one in receiver.received] == [job, job]


def test_states_have_counts_and_all_that_match_are_changed_at_once(page: Page, stack: Stack) -> None:
    many = 130
    with stack.paused("gpu.echo"):
        for number in range(many):
            stack.generate(f"crowd {number}")
        page.goto("/ui/jobs?q=crowd")
        states = page.get_by_role("group", name="State")
        expect(states.get_by_role("button", name="All")).to_have_text(f"All {many}")
        expect(states.get_by_role("button", name="Failed")).to_have_text("Failed 0")
        states.get_by_role("button", name="Queued").click()
        expect(page).to_have_url(re.compile(r"\?q=crowd&status=queued$"))
        page.get_by_label("Select all that are loaded").check()
        selection = page.get_by_role("group", name="Selection")
        expect(selection).to_contain_text("100 selected")
        selection.get_by_role("button", name=re.compile("^Select all 130 that match$")).click()
        expect(selection).to_contain_text("All 130 that match")
        expect(selection.get_by_role("button", name="Retry")).to_be_disabled()
        selection.get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel jobs").click()
        expect(page.get_by_text(re.compile("^130 jobs cancelled.$"))).to_be_visible()
        expect(page.get_by_text("No job matches")).to_be_visible()
    states.get_by_role("button", name="Cancelled").click()
    expect(page.locator("[data-job]").first).to_contain_text("crowd 129")
    page.get_by_label("Select all that are loaded").check()
    selection.get_by_role("button", name=re.compile("^Select all")).click()
    selection.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text(re.compile("^130 jobs deleted.$"))).to_be_visible()
    expect(page.get_by_text("No job matches")).to_be_visible()


def test_jobs_are_searched_by_text_and_collection_in_the_address(page: Page, stack: Stack) -> None:
    document = add_documents(stack, "tariffs", prices_txt="A ticket costs four euros.")[0]
    ingest = stack.client.get(f"/documents/{document}").json()["job_id"]
    asked = stack.generate("What does a ticket cost?", collection="tariffs")["id"]
    stack.ended(asked)
    page.goto("/ui/jobs")
    page.get_by_label("Collection").select_option("tariffs")
    expect(page.locator("[data-job]")).to_have_count(2)
    page.get_by_label("Search jobs").fill("TICKET")
    expect(page).to_have_url(re.compile(r"\?collection=tariffs&q=TICKET$"))
    expect(page.locator("[data-job]")).to_have_count(1)
    expect(page.locator(f"[data-job={asked}]")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Search jobs")).to_have_value("TICKET")
    expect(page.get_by_label("Collection")).to_have_value("tariffs")
    expect(page.locator("[data-job]")).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(page.get_by_label("Search jobs")).to_have_value("")
    expect(page.locator(f"[data-job={ingest}]")).to_be_visible()


def test_jobs_are_filtered_by_time_and_metadata(page: Page, stack: Stack) -> None:
    marked = stack.generate("One of the run.", metadata={"run": "seven", "team": "search"})["id"]
    other = stack.generate("One of another run.", metadata={"run": "eight"})["id"]
    for job in (marked, other):
        stack.ended(job)
    page.goto("/ui/jobs")
    expect(page.locator(f"[data-job={other}]")).to_be_visible()
    metadata = page.get_by_label("Metadata")
    metadata.fill("seven")
    metadata.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("is not name=value")
    metadata.fill("run=seven, team=search")
    metadata.press("Enter")
    expect(page).to_have_url(re.compile(r"metadata\.run=seven&metadata\.team=search$"))
    expect(page.locator("[data-job]")).to_have_count(1)
    expect(page.locator(f"[data-job={marked}]")).to_be_visible()
    expect(page.get_by_role("button", name="Completed 1", exact=True)).to_be_visible()
    page.get_by_label("Submitted").select_option("Last hour")
    expect(page).to_have_url(re.compile("within=1h"))
    expect(page.locator(f"[data-job={marked}]")).to_be_visible()
    page.get_by_label("Submitted").select_option("Between…")
    page.get_by_label("to", exact=True).fill("2025-01-01T00:00")
    expect(page.get_by_text("No job matches")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Metadata")).to_have_value("run=seven, team=search")
    expect(page.get_by_label("to", exact=True)).to_have_value("2025-01-01T00:00")
    page.get_by_label("to", exact=True).fill("2100-01-01T00:00")
    page.get_by_label("Select all that are loaded").check()
    page.get_by_role("group", name="Selection").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No job matches")).to_be_visible()
    assert stack.client.get(f"/jobs/{marked}").status_code == 404
    page.get_by_role("button", name="Clear filters").first.click()
    expect(page).to_have_url(re.compile("/ui/jobs$"))
    expect(page.locator(f"[data-job={other}]")).to_be_visible()


def test_a_job_shows_its_request_and_copies_it_as_a_command(page: Page, context: BrowserContext, stack: Stack) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    add_documents(stack, "tariffs", fines_txt="A late book costs a euro.")
    body = {"messages": [{"role": "user", "content": "It's late: what does it cost?"}], "max_tokens": 20}
    job = stack.post("/generate", {**body, "collection": "tariffs"}, Prefer="wait=60").json()["id"]
    page.goto(f"/ui/jobs/{job}")
    page.get_by_role("tab", name="Request").click()
    panel = page.get_by_role("tabpanel")
    expect(panel.locator(".message")).to_contain_text("It's late: what does it cost?")
    expect(panel.get_by_role("link", name="tariffs")).to_be_visible()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("() => navigator.clipboard.readText()")
    answer = json.loads(subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60).stdout)
    assert answer["summary"] == "It's late: what does it cost?"
    again = stack.client.get(f"/jobs/{answer['id']}/request").json()["request"]
    assert again == stack.client.get(f"/jobs/{job}/request").json()["request"]


def test_an_idle_list_costs_little(page: Page, stack: Stack) -> None:
    """In a minute of the page's clock, which passes faster here."""
    for number in range(30):
        stack.ended(stack.generate(f"quiet {number}")["id"])
    page.clock.install()
    page.goto("/ui/jobs")
    expect(page.locator("[data-job]").first).to_be_visible()
    page.clock.run_for(6000)
    page.wait_for_load_state("networkidle")
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response))
    for _ in range(12):
        with page.expect_response(lambda response: "/jobs?" in response.url) as polled:
            page.clock.run_for(5000)
        assert polled.value.status == 304
    page.wait_for_load_state("networkidle")
    sizes = [answer.request.sizes() for answer in answers]
    assert len(sizes) >= 24, "the list and the counts, each every five seconds"
    assert sum(size["responseHeadersSize"] + size["responseBodySize"] for size in sizes) < 20_000
