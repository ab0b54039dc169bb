"""The calls that show the GPUs and say which models they hold."""

from api.operations.operation import Example, Operation, Reply, in_path
from api.schemas import responses
from api.schemas.requests import ModelWish

TAG = "GPUs"
ONLY = "Wants a key made with `--admin`."
GPU = in_path("gpu", "The number of a gpu worker, or its name where several hosts have one of this number.", "0")

OPERATIONS = (
    Operation(
        call="GET /admin/gpus",
        tag=TAG,
        summary="Every gpu worker: the model that it holds and should hold, what its engine does, the health of its GPUs",
        description=ONLY,
        replies={200: Reply(description="All on one page.", model=responses.GpuList)},
    ),
    Operation(
        call="PUT /admin/gpus/{gpu}/model",
        tag=TAG,
        summary="Say which model a GPU is to hold",
        description=f"It is done while the answer is on its way: see `state`. The wish outlives the worker. {ONLY}",
        parameters=(GPU,),
        body=ModelWish,
        examples={"unload": Example(summary="Hold none", body={"model": None})},
        replies={202: Reply(description="The wish is written.", model=responses.GpuSeat)},
        refusals=(409,),
    ),
)
