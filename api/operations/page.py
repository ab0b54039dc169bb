"""What is for people: the page, and this reference."""

from api.operations.operation import Operation, Reply, in_path

HTML = "text/html"

OPERATIONS = (
    Operation(
        call="GET /",
        tag="For people",
        summary="The page: chat, documents, jobs",
        replies={200: Reply(description="HTML.", media_type=HTML), 304: Reply(description="As you have it.", media_type="")},
        open=True,
    ),
    Operation(
        call="GET /static/{name}",
        tag="For people",
        summary="A file of the page",
        parameters=(in_path("name", "Its name.", "mark.svg"),),
        replies={
            200: Reply(description="The file.", media_type="*/*"),
            304: Reply(description="As you have it.", media_type=""),
        },
        open=True,
    ),
    Operation(
        call="GET /docs",
        tag="For people",
        summary="This description, to read",
        replies={200: Reply(description="HTML.", media_type=HTML), 304: Reply(description="As you have it.", media_type="")},
        open=True,
    ),
    Operation(
        call="GET /openapi.json",
        tag="For people",
        summary="This description, for programs",
        description="OpenAPI 3.1.",
        replies={
            200: Reply(description="The document.", media_type="application/json"),
            304: Reply(description="As you have it.", media_type=""),
        },
        open=True,
    ),
)
