"""What the trainer writes into an adapter comes back as the settings that made it."""

from typing import Any

import pytest

from lora_api import LoraTraining
from lora_trainer.data.buckets import side_limits
from lora_trainer.lora.metadata import RunFacts, adapter_metadata
from lora_trainer.migration.metadata import read_metadata
from lora_trainer.migration.source import Choices
from tests.support.documents import make_training
from tests.support.imports import bring_over

PLACES = Choices("s3://models/sd15", "s3://lora/data", "s3://lora/runs/hina", "hina")
CLASSES = {
    "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "adafactor": "transformers.optimization.Adafactor(scale_parameter=False,relative_step=False,warmup_init=False)",
    "lion": "bitsandbytes.optim.lion.Lion(betas=(0.9, 0.95),weight_decay=0.1)",
}


def facts(training: LoraTraining) -> RunFacts:
    spec = training.spec
    return RunFacts(
        base_name="sd15-abcdef01",
        base_digest="ab" * 32,
        family=spec.base_model.family or "sd15",
        prediction=spec.base_model.prediction or "epsilon",
        session_id=7,
        optimizer=CLASSES[spec.optimizer.name],
        training_samples=60,
        regularization_samples=0,
        batches_per_epoch=60,
        epochs=min(spec.training.epochs, 3) if spec.training.max_steps else spec.training.epochs,
        total_steps=spec.training.max_steps or 60 * spec.training.epochs,
        bucket_limits=side_limits(spec.dataset.size_px, spec.dataset.buckets),
        bucket_info={"buckets": {}, "mean_img_ar_error": 0.0},
        dataset_dirs={"2_zwx": {"n_repeats": 2, "img_count": 30}},
        regularization_dirs={},
        tag_frequency={"2_zwx": {"zwx": 30}},
    )


def brought_back(*changes: tuple[str, Any]) -> tuple[LoraTraining, LoraTraining]:
    """The training, and what its metadata becomes."""
    # The import always says alpha, so that the strength is known.
    training = make_training(("network.alpha", 8.0), *changes)
    source = read_metadata(adapter_metadata(training, facts(training), epoch=1, step=6))
    again, draft = bring_over(source, PLACES)
    assert draft.leftovers == []
    return training, again


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [("dataset.resolution", "768x512"), ("dataset.buckets", {"minPx": 256, "maxPx": 1024, "stepPx": 32})],
        [("dataset.buckets", {"upscale": False, "resizeFilter": "Lanczos"})],
        [("dataset.buckets", {"enabled": False, "resizeFilter": "Box"})],
        [("dataset.captions", {"extension": ".cap", "maxTokens": 225, "prefix": "a", "suffix": "b", "weighted": True})],
        [("dataset.captions", {"shuffle": True, "keepTokens": 2, "separator": ";", "secondarySeparator": ";;;"})],
        [("dataset.captions", {"keepTokensSeparator": "|||", "wildcards": True, "dropoutEveryNEpochs": 3})],
        [("dataset.captions", {"dropoutFraction": 0.1, "tagDropoutFraction": 0.2, "tokenWarmup": {"steps": 9}})],
        [("dataset.captions", {"tokenWarmup": {"minTags": 2, "fraction": 0.5}})],
        [("dataset.augmentation", {"flip": True}), ("dataset.mask", "Alpha")],
        [("dataset.latentCache", "None")],
        [("dataset.augmentation", {"color": True, "randomCrop": True}), ("dataset.latentCache", "None")],
        [
            ("dataset.augmentation", {"faceCropRange": {"minimum": 2.0, "maximum": 4.0}}),
            ("dataset.latentCache", "None"),
        ],
        [("dataset.regularization.lossWeight", 0.5), ("dataset.mask", "Files")],
        [("network", {"type": "locon", "rank": 8, "alpha": 8.0, "convRank": 4, "convAlpha": 2.0})],
        [("network", {"type": "dora", "rank": 8, "alpha": 8.0, "dropout": 0.1, "rankDropout": 0.2})],
        [("network", {"type": "loha", "rank": 8, "alpha": 8.0, "convRank": 4, "convAlpha": 2.0})],
        [("network", {"type": "lokr", "rank": 8, "alpha": 8.0, "lokrFactor": 4, "moduleDropout": 0.1})],
        [("network.weightNormLimit", 1.0), ("network.dropout", 0.25), ("network.rank", 4)],
        [("network.blocks", [{"name": "IN01", "rank": 4, "alpha": 2.0}, {"name": "M00", "learningRateFactor": 0.5}])],
        [("optimizer.loraPlus", {"ratio": 16.0, "unetRatio": 4.0})],
        [("optimizer.unetLearningRate", 2e-4), ("optimizer.textEncoderLearningRate", 3e-5)],
        [("optimizer.name", "adafactor"), ("optimizer.maxGradNorm", 0.0)],
        [("optimizer.name", "lion"), ("optimizer.arguments", {"betas": "(0.9, 0.95)", "weight_decay": "0.1"})],
        [("optimizer.schedule", {"name": "constant", "warmupFraction": 0.1})],
        [("optimizer.schedule", {"name": "cosine_with_restarts", "cycles": 3, "warmupSteps": 10})],
        [("optimizer.schedule", {"name": "polynomial", "power": 2.0})],
        [("optimizer.schedule", {"name": "inverse_sqrt", "timescale": 100})],
        [("optimizer.schedule", {"name": "warmup_stable_decay", "decayFraction": 0.2, "minRateFraction": 0.1})],
        [("optimizer.schedule", {"name": "warmup_stable_decay", "decaySteps": 20})],
        [("optimizer.schedule", {"name": "piecewise_constant", "pieces": [{"fromStep": 9, "factor": 0.5}]})],
        [("training", {"epochs": 3, "maxSteps": 100, "batchSize": 2, "seed": 5})],
        [("training", {"epochs": 2, "precision": "fp32", "lowMemory": True, "gradientCheckpointing": True})],
        [("training", {"precision": "bf16", "fullPrecision": True})],
        [("training", {"precision": "fp16", "fullPrecision": True})],
        [("training.loss", {"minSnrGamma": 5.0, "noiseOffset": 0.1, "adaptiveNoiseScale": 0.01})],
        [("training.loss", {"noiseOffset": 0.1, "noiseOffsetRandomStrength": True, "debiasedEstimation": True})],
        [("training.loss", {"multiresNoiseIterations": 6, "multiresNoiseDiscount": 0.2, "vPredictionLikeLoss": 0.5})],
        [("training.loss", {"ipNoiseGamma": 0.1, "ipNoiseGammaRandomStrength": True, "maxTimestep": 900})],
        [("training.loss", {"type": "huber", "huberC": 0.2, "huberSchedule": "constant", "huberScale": 2.0})],
        [("training.loss", {"type": "smooth_l1"})],
        [
            ("baseModel.family", "sd2"),
            ("baseModel.prediction", "v_prediction"),
            ("training.loss", {"zeroTerminalSnr": True, "scaleVPredictionLikeNoise": True}),
        ],
        [
            ("baseModel.family", "sdxl"),
            ("optimizer.textEncoderLearningRate", 5e-5),
            ("optimizer.textEncoder2LearningRate", 1e-5),
            ("network.blocks", [{"name": "M02", "learningRateFactor": 0.0}, {"name": "OUT08", "rank": 4}]),
        ],
        [("baseModel.clipSkip", 2), ("output.comment", "none: 5"), ("output.name", "hina_v2")],
        [("output.card", {"title": "T", "author": "A", "license": "CC0", "triggerPhrase": "zwx", "tags": "a, b"})],
    ],
    ids=lambda changes: " ".join(path for path, _ in changes) or "defaults",
)
def test_settings_come_back(changes: list[tuple[str, Any]]) -> None:
    before, after = brought_back(*changes)

    assert after.spec.model_dump(exclude_defaults=True) == expected(before)


def test_the_number_of_cached_versions_is_a_guess_that_says_so() -> None:
    changes = ("dataset.augmentation.color", True), ("dataset.latentVariants", 2)
    training = make_training(*changes)

    again, draft = bring_over(read_metadata(adapter_metadata(training, facts(training), epoch=1, step=6)), PLACES)

    assert (again.spec.dataset.augmentation.color, again.spec.dataset.latent_variants) == (True, 4)
    assert "guess" in draft.remarks["dataset.latentVariants"]


def expected(training: LoraTraining) -> dict[str, Any]:
    """What was set, with the name of the file, which the metadata always has."""
    spec = training.spec.model_dump(exclude_defaults=True)
    spec["output"]["name"] = training.output_name
    return spec
