"""Settings that cannot work, each with the field and the cure that its refusal must name."""

from typing import Any, NamedTuple

S3 = "use s3://bucket/prefix"
KNOWN = "known are"


class Wrong(NamedTuple):
    """One mistake."""

    changes: dict[str, Any]
    """Path below `spec` -> value; None takes the field away."""
    field: str
    """What the message must name."""
    cure: str
    """What it must tell to do."""
    only_python: bool = False
    """The API server cannot see it; the operator, `lora validate` and the trainer do."""


def subsets(*entries: dict[str, Any]) -> dict[str, Any]:
    """The changes that put explicit folders in place of `dataset.uri`."""
    return {"dataset.uri": None, "dataset.subsets": list(entries)}


def _argument(optimizer: str, name: str, value: str) -> dict[str, Any]:
    rate = {"learningRate": 1} if optimizer.startswith(("dadapt", "prodigy")) else {}
    return {"optimizer": {"name": optimizer, "arguments": {name: value}, **rate}}


A, B = {"uri": "s3://b-b/1"}, {"uri": "s3://b-b/2"}
CLASS = {"uri": "s3://b-b/3", "isRegularization": True}
BASE_MODEL: dict[str, Wrong] = {
    "no base model": Wrong({"baseModel": None}, "spec.baseModel is", "missing; add it"),
    "no uri": Wrong({"baseModel": {}}, "spec.baseModel.uri", "missing; add it"),
    "path without scheme": Wrong({"baseModel.uri": "/models/sd15"}, "spec.baseModel.uri", S3),
    "hub address": Wrong({"baseModel.uri": "https://huggingface.co/a/b"}, "spec.baseModel.uri", "hf://owner/repo"),
    "hub without owner": Wrong({"baseModel.uri": "hf://sd15"}, "spec.baseModel.uri", "hf://owner/repo"),
    "claim in capitals": Wrong({"baseModel.uri": "pvc://Models/a"}, "spec.baseModel.uri", "pvc://claim/path"),
    "bucket too short": Wrong({"baseModel.uri": "s3://m/a"}, "spec.baseModel.uri", S3),
    "query in a uri": Wrong({"baseModel.uri": "s3://models/a?x=1"}, "spec.baseModel.uri", S3),
    "uri too short": Wrong({"baseModel.uri": "s3://"}, "spec.baseModel.uri", "at least 6 characters"),
    "checkpoint as pickle": Wrong({"baseModel.uri": "s3://models/a.ckpt"}, "uri names a pickle", ".safetensors"),
    "pickle in capitals": Wrong({"baseModel.uri": "s3://models/A.CKPT"}, "uri names a pickle", ".safetensors"),
    "vae as pickle": Wrong({"baseModel.vaeUri": "s3://models/v.pt"}, "vaeUri names a pickle", ".safetensors"),
    "vae of no scheme": Wrong({"baseModel.vaeUri": "models/v.safetensors"}, "spec.baseModel.vaeUri", S3),
    "family unknown": Wrong({"baseModel.family": "sd3"}, "spec.baseModel.family", "'sd15', 'sd2' or 'sdxl'"),
    "family in capitals": Wrong({"baseModel.family": "SDXL"}, "spec.baseModel.family", "'sdxl'"),
    "prediction unknown": Wrong({"baseModel.prediction": "v"}, "spec.baseModel.prediction", "'v_prediction'"),
    "clip skip of 0": Wrong({"baseModel.clipSkip": 0}, "spec.baseModel.clipSkip", "at least 1"),
    "clip skip of 13": Wrong({"baseModel.clipSkip": 13}, "spec.baseModel.clipSkip", "at most 12"),
    "clip skip of sdxl": Wrong({"baseModel.family": "sdxl", "baseModel.clipSkip": 2}, "clipSkip", "remove it"),
    "token without hub": Wrong({"baseModel.tokenSecretRef": {"name": "a", "key": "b"}}, "tokenSecretRef", "remove it"),
    "token without key": Wrong({"baseModel.tokenSecretRef": {"name": "a"}}, "spec.baseModel.tokenSecretRef.key", "add"),
    "secret in capitals": Wrong(
        {"storage.credentialsSecretRef": {"name": "My_Secret"}}, "spec.storage.credentialsSecretRef.name", "must match"
    ),
    "base adapter as pickle": Wrong(
        {"baseModel.adapters": [{"uri": "s3://models/a.bin"}]}, "spec.baseModel.adapters[0]", ".safetensors"
    ),
    "base adapter of no weight": Wrong(
        {"baseModel.adapters": [{"uri": "s3://models/a.safetensors", "weight": 0}]}, "weight is 0", "change weight"
    ),
    "base adapter too strong": Wrong(
        {"baseModel.adapters": [{"uri": "s3://models/a.safetensors", "weight": 11}]}, "adapters[0].weight", "at most 10"
    ),
    "too many base adapters": Wrong(
        {"baseModel.adapters": [{"uri": "s3://models/a.safetensors"}] * 9}, "spec.baseModel.adapters", "at most 8"
    ),
    "store of the base without scheme": Wrong(
        {"baseModel.storage": {"endpoint": "minio:9000"}}, "spec.baseModel.storage.endpoint", "must match"
    ),
    "store of the base, anonymous with a Secret": Wrong(
        {"baseModel.storage": {"anonymous": True, "credentialsSecretRef": {"name": "s3"}}},
        "spec.baseModel.storage",
        "remove one",
    ),
    "kohya's name of the base": Wrong(
        {"baseModel.pretrained_model_name_or_path": "a"}, "pretrained_model_name_or_path", KNOWN
    ),
}
NETWORK: dict[str, Wrong] = {
    "type of other trainers": Wrong({"network.type": "oft"}, "spec.network.type", "'lora', 'locon', 'dora'"),
    "rank of 0": Wrong({"network.rank": 0}, "spec.network.rank", "at least 1"),
    "rank of 2000": Wrong({"network.rank": 2000}, "spec.network.rank", "at most 1024"),
    "rank in text": Wrong({"network.rank": "16"}, "spec.network.rank", "an integer"),
    "rank in pieces": Wrong({"network.rank": 8.5}, "spec.network.rank", "an integer"),
    "misspelt rank": Wrong({"network.rnak": 4}, "spec.network.rnak", "did you mean rank?"),
    "kohya's name of the rank": Wrong({"network.networkDim": 4}, "spec.network.networkDim", KNOWN),
    "alpha of 0": Wrong({"network.alpha": 0}, "spec.network.alpha", "more than 0"),
    "alpha of 5000": Wrong({"network.alpha": 5000}, "spec.network.alpha", "at most 4096"),
    "dropout of everything": Wrong({"network.dropout": 1}, "spec.network.dropout", "less than 1"),
    "dropout in percent": Wrong({"network.rankDropout": 10}, "spec.network.rankDropout", "less than 1"),
    "dropout below 0": Wrong({"network.moduleDropout": -0.1}, "spec.network.moduleDropout", "at least 0"),
    "dropout of loha": Wrong({"network": {"type": "loha", "dropout": 0.1}}, "dropout", "use rankDropout"),
    "convolutions of lora": Wrong({"network.convRank": 8}, "convRank", "use type locon"),
    "convolutions of lora in a block": Wrong(
        {"network.blocks": [{"name": "IN01", "convRank": 4}]}, "blocks with convRank", "use type locon"
    ),
    "convolutions of rank 0": Wrong({"network": {"type": "locon", "convRank": 0}}, "network.convRank", "at least 1"),
    "strength of no convolutions": Wrong({"network": {"type": "dora", "convAlpha": 4}}, "convAlpha", "set it, or"),
    "convolutions without unet": Wrong(
        {"network": {"type": "locon", "convRank": 4, "unet": False}}, "convRank and convAlpha belong", "remove them"
    ),
    "norm limit of lokr": Wrong({"network": {"type": "lokr", "weightNormLimit": 1}}, "weightNormLimit", "remove it"),
    "norm limit of 0": Wrong({"network.weightNormLimit": 0}, "spec.network.weightNormLimit", "more than 0"),
    "loha for diffusers": Wrong(
        {"network": {"type": "loha"}, "output.formats": ["kohya", "diffusers"]}, "output.formats", "remove it"
    ),
    "factor without lokr": Wrong({"network.lokrFactor": 8}, "lokrFactor", "change type"),
    "factor of 1": Wrong({"network": {"type": "lokr", "lokrFactor": 1}}, "spec.network.lokrFactor", "at least 2"),
    "nothing adapted": Wrong({"network": {"unet": False, "textEncoder": False}}, "unet and textEncoder", "set one"),
    "parts in words": Wrong({"network.unet": "yes"}, "spec.network.unet", "a boolean"),
    "blocks without unet": Wrong(
        {"network": {"unet": False, "blocks": [{"name": "IN01", "rank": 4}]}}, "blocks belong", "remove them"
    ),
    "block twice": Wrong(
        {"network.blocks": [{"name": "M00", "rank": 4}, {"name": "M00", "alpha": 2}]}, "a block twice", "join"
    ),
    "block of no name": Wrong({"network.blocks": [{"rank": 4}]}, "spec.network.blocks[0].name", "add it"),
    "block unknown": Wrong({"network.blocks": [{"name": "IN12", "rank": 4}]}, "blocks[0].name", "'IN11'"),
    "block without a difference": Wrong({"network.blocks": [{"name": "IN01"}]}, "spec.network.blocks[0]", "remove"),
    "block of rank -1": Wrong({"network.blocks": [{"name": "IN01", "rank": -1}]}, "blocks[0].rank", "at least 0"),
    "block with a weak factor": Wrong(
        {"network.blocks": [{"name": "IN01", "learningRateFactor": -1}]}, "blocks[0].learningRateFactor", "at least 0"
    ),
    "block that sdxl does not have": Wrong(
        {"baseModel.family": "sdxl", "network.blocks": [{"name": "IN09", "rank": 4}]}, "network.blocks", "remove it"
    ),
    "block that only sdxl has": Wrong(
        {"baseModel.family": "sd15", "network.blocks": [{"name": "M01", "rank": 4}]}, "network.blocks", "remove it"
    ),
    "blocks as a map": Wrong({"network.blocks": {"IN01": 4}}, "spec.network.blocks", "a list"),
    "start from a pickle": Wrong({"network.initialUri": "s3://lora/a.pt"}, "initialUri names", ".safetensors"),
}
OPTIMIZER: dict[str, Wrong] = {
    "optimizer unknown": Wrong({"optimizer.name": "adam"}, "spec.optimizer.name", "'adamw', 'adamw8bit'"),
    "optimizer as kohya writes it": Wrong({"optimizer.name": "AdamW8bit"}, "spec.optimizer.name", "'adamw8bit'"),
    "rate below 0": Wrong({"optimizer.learningRate": -1e-4}, "spec.optimizer.learningRate", "at least 0"),
    "rate of 100": Wrong({"optimizer.learningRate": 100}, "spec.optimizer.learningRate", "at most 10"),
    "rate in text": Wrong({"optimizer.learningRate": "1e-4"}, "spec.optimizer.learningRate", "a number"),
    "all rates 0": Wrong({"optimizer.learningRate": 0}, "learning rate of everything", "raise learningRate"),
    "unet alone at rate 0": Wrong(
        {"network.textEncoder": False, "optimizer.unetLearningRate": 0}, "learning rate of everything", "raise"
    ),
    "rate of no text encoder": Wrong(
        {"network.textEncoder": False, "optimizer.textEncoderLearningRate": 1e-5}, "textEncoderLearningRate", "remove"
    ),
    "rate of no unet": Wrong(
        {"network.unet": False, "optimizer.unetLearningRate": 1e-5}, "optimizer.unetLearningRate", "remove it"
    ),
    "rate of a second encoder": Wrong(
        {"baseModel.family": "sd15", "optimizer.textEncoder2LearningRate": 1e-5}, "textEncoder2LearningRate", "remove"
    ),
    "gradient norm below 0": Wrong({"optimizer.maxGradNorm": -1}, "spec.optimizer.maxGradNorm", "at least 0"),
    "prodigy at an ordinary rate": Wrong({"optimizer.name": "prodigy"}, "learningRate", "set it to about 1"),
    "prodigy with two rates": Wrong(
        {"optimizer": {"name": "prodigy", "learningRate": 1, "unetLearningRate": 0.5}}, "one learning rate", "remove"
    ),
    "dadaptation with LoRA+": Wrong(
        {"optimizer": {"name": "dadaptadam", "learningRate": 1, "loraPlus": {"ratio": 16}}}, "loraPlus", "remove it"
    ),
    "prodigy with a slow block": Wrong(
        {
            "optimizer": {"name": "prodigy", "learningRate": 1},
            "network.blocks": [{"name": "IN01", "learningRateFactor": 0.5}],
        },
        "network.blocks[].learningRateFactor",
        "change it",
    ),
    "dadaptsgd with warm-up": Wrong(
        {"optimizer": {"name": "dadaptsgd", "learningRate": 1, "schedule": {"warmupSteps": 5}}},
        "schedule.warmupSteps",
        "remove",
    ),
    "schedule of a schedule-free": Wrong(
        {"optimizer": {"name": "schedulefree", "schedule": {"name": "cosine"}}}, "schedule.name", "remove it"
    ),
    "warm-up of a schedule-free": Wrong(
        {"optimizer": {"name": "radamschedulefree", "schedule": {"warmupFraction": 0.1}}}, "warmupFraction", "remove"
    ),
    "average of a schedule-free": Wrong(
        {"optimizer.name": "sgdschedulefree", "training.ema": {}}, "training.ema", "remove it"
    ),
    **{
        f"{name} with fp16 weights": Wrong(
            {"optimizer": {"name": name, "learningRate": 1}, "training": {"precision": "fp16", "fullPrecision": True}},
            "optimizer.name",
            "use precision bf16, or adamw8bit",
        )
        for name in ("adamw", "prodigy", "schedulefree")
    },
    "paged without GPU": Wrong(
        {"optimizer.name": "pagedadamw8bit", "parallelism.gpusPerNode": 0}, "optimizer.name", "without paged"
    ),
    "LoRA+ without ratio": Wrong({"optimizer.loraPlus": {}}, "spec.optimizer.loraPlus.ratio", "add it"),
    "LoRA+ that slows": Wrong({"optimizer.loraPlus": {"ratio": 0.5}}, "spec.optimizer.loraPlus.ratio", "at least 1"),
    "LoRA+ of no unet": Wrong(
        {"network.unet": False, "optimizer.loraPlus": {"ratio": 4, "unetRatio": 8}}, "optimizer.loraPlus", "remove it"
    ),
    "arguments as kohya writes them": Wrong(
        {"optimizer.arguments": ["weight_decay=0.1"]}, "spec.optimizer.arguments", "an object"
    ),
    "arguments as numbers": Wrong({"optimizer.arguments": {"weight_decay": 0.1}}, "arguments.weight_decay", "a string"),
    "curve unknown": Wrong({"optimizer.schedule": {"name": "exponential"}}, "schedule.name", "'polynomial'"),
    "kohya's name of constant": Wrong(
        {"optimizer.schedule": {"name": "constant_with_warmup"}}, "spec.optimizer.schedule.name", "'constant'"
    ),
    "warm-up below 0": Wrong({"optimizer.schedule": {"warmupSteps": -1}}, "schedule.warmupSteps", "at least 0"),
    "warm-up of the whole run": Wrong({"optimizer.schedule": {"warmupFraction": 1}}, "warmupFraction", "less than 1"),
    "warm-up in percent": Wrong({"optimizer.schedule": {"warmupFraction": 10}}, "warmupFraction", "less than 1"),
    "warm-up said twice": Wrong(
        {"optimizer.schedule": {"warmupFraction": 0.1, "warmupSteps": 10}}, "warmupSteps and warmupFraction", "remove"
    ),
    "warm-up longer than the run": Wrong(
        {"optimizer.schedule": {"warmupSteps": 10}, "training.maxSteps": 10}, "optimizer.schedule.warmupSteps", "lower"
    ),
    "cycles of a cosine": Wrong({"optimizer.schedule": {"name": "cosine", "cycles": 3}}, "cycles", "change name"),
    "no cycle": Wrong(
        {"optimizer.schedule": {"name": "cosine_with_restarts", "cycles": 0}}, "schedule.cycles", "at least 1"
    ),
    "power of linear": Wrong({"optimizer.schedule": {"name": "linear", "power": 2}}, "power", "change name"),
    "power of 0": Wrong({"optimizer.schedule": {"name": "polynomial", "power": 0}}, "schedule.power", "more than 0"),
    "timescale of constant": Wrong({"optimizer.schedule": {"timescale": 10}}, "timescale", "change name"),
    "least rate of cosine": Wrong(
        {"optimizer.schedule": {"name": "cosine", "minRateFraction": 0.1}}, "minRateFraction", "change name"
    ),
    "least rate above the rate": Wrong(
        {"optimizer.schedule": {"name": "cosine_with_min_lr", "minRateFraction": 2}}, "minRateFraction", "at most 1"
    ),
    "decay of cosine": Wrong({"optimizer.schedule": {"name": "cosine", "decaySteps": 5}}, "decaySteps", "change name"),
    "share of decay of cosine": Wrong(
        {"optimizer.schedule": {"name": "cosine", "decayFraction": 0.5}}, "decayFraction", "change name"
    ),
    "no decay": Wrong({"optimizer.schedule": {"name": "warmup_stable_decay"}}, "needs decaySteps", "or decayFraction"),
    "decay said twice": Wrong(
        {"optimizer.schedule": {"name": "warmup_stable_decay", "decaySteps": 5, "decayFraction": 0.5}},
        "decaySteps and decayFraction",
        "remove one",
    ),
    "warm-up and decay of more than all": Wrong(
        {"optimizer.schedule": {"name": "warmup_stable_decay", "warmupFraction": 0.6, "decayFraction": 0.5}},
        "warmupFraction and decayFraction",
        "lower one",
    ),
    "warm-up and decay of more than the steps": Wrong(
        {
            "optimizer.schedule": {"name": "warmup_stable_decay", "warmupSteps": 6, "decaySteps": 5},
            "training.maxSteps": 10,
        },
        "warmupSteps and decaySteps",
        "lower one",
    ),
    "pieces of a cosine": Wrong(
        {"optimizer.schedule": {"name": "cosine", "pieces": [{"fromStep": 1, "factor": 0.5}]}}, "pieces", "change name"
    ),
    "no pieces": Wrong({"optimizer.schedule": {"name": "piecewise_constant"}}, "needs pieces", "such as [{fromStep"),
    "piece of no factor": Wrong(
        {"optimizer.schedule": {"name": "piecewise_constant", "pieces": [{"fromStep": 1}]}}, "pieces[0].factor", "add"
    ),
    "piece twice": Wrong(
        {
            "optimizer.schedule": {
                "name": "piecewise_constant",
                "pieces": [{"fromStep": 1, "factor": 0.5}, {"fromStep": 1, "factor": 0.1}],
            }
        },
        "pieces names a step twice",
        "remove one",
    ),
    "piece after the end": Wrong(
        {
            "optimizer.schedule": {"name": "piecewise_constant", "pieces": [{"fromStep": 10, "factor": 0.5}]},
            "training.maxSteps": 10,
        },
        "optimizer.schedule.pieces",
        "remove what is never reached",
    ),
}
ARGUMENTS: dict[str, Wrong] = {
    f"argument: {optimizer} {name}={value}": Wrong(
        _argument(optimizer, name, value), f"spec.optimizer.arguments.{name}", cure, only_python=True
    )
    for optimizer, name, value, cure in (
        ("adamw8bit", "decay", "0.1", "known are betas, eps, min_8bit_size, weight_decay"),
        ("adamw8bit", "lr", "0.1", KNOWN),
        ("adamw8bit", "weight_decay", "much", "a number of at least 0"),
        ("adamw8bit", "weight_decay", "-0.1", "a number of at least 0"),
        ("adamw8bit", "betas", "0.9", "two numbers from 0 to below 1"),
        ("adamw8bit", "betas", "(0.9, 0.99, 0.999)", "two numbers"),
        ("adamw", "betas", "(0.9, 1.0)", "two numbers from 0 to below 1"),
        ("adamw", "betas", "0.9 0.99", "such as (0.9, 0.99)"),
        ("adamw", "eps", "0", "a number above 0"),
        ("adamw", "eps", "__import__('os')", "a number above 0"),
        ("adamw", "amsgrad", "yes", "True or False"),
        ("adamw", "fused", "True", KNOWN),
        ("pagedadamw32bit", "amsgrad", "True", KNOWN),
        ("lion8bit", "eps", "1e-8", "known are betas"),
        ("sgdnesterov", "momentum", "0", "above 0 and below 1"),
        ("sgdnesterov8bit", "nesterov", "True", "known are min_8bit_size, momentum"),
        ("adafactor", "relative_step", "True", "must be False"),
        ("adafactor", "warmup_init", "True", "must be False"),
        ("adafactor", "eps", "1e-30", "two numbers above 0"),
        ("adafactor", "decay_rate", "0.8", "a number below 0"),
        ("prodigy", "d_coef", "0", "a number above 0"),
        ("prodigy", "beta3", "1.5", "None, or a number"),
        ("prodigy", "slice_p", "0", "a whole number of at least 1"),
        ("dadaptadan", "betas", "(0.9, 0.99)", "three numbers"),
        ("dadaptlion", "growth_rate", "1.02", KNOWN),
        ("dadaptation", "growth_rate", "0.5", "a number of at least 1"),
        ("dadaptadagrad", "log_every", "1.5", "a whole number"),
        ("radamschedulefree", "warmup_steps", "100", KNOWN),
        ("schedulefree", "warmup_steps", "-1", "a whole number of at least 0"),
    )
}
