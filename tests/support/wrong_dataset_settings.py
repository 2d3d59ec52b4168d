"""Settings of the dataset that cannot work; the other sections lie in `wrong_settings`."""

from tests.support.wrong_settings import CLASS, KNOWN, S3, A, B, Wrong, subsets

CROPPED = {"randomCrop": True}
FACES = {"faceCropRange": {"minimum": 1, "maximum": 2}}
BLIP = {"modelUri": "s3://models/blip"}
DATASET: dict[str, Wrong] = {
    "no dataset": Wrong({"dataset": None}, "spec.dataset is", "missing; add it"),
    "no source": Wrong({"dataset": {}}, "uri and subsets", "exactly one"),
    "two sources": Wrong({"dataset.subsets": [A]}, "uri and subsets", "exactly one"),
    "scheme": Wrong({"dataset.uri": "gs://lora/data"}, "spec.dataset.uri", S3),
    "up and away": Wrong({"dataset.uri": "s3://lora/a/../b"}, "spec.dataset.uri", "must not contain '..'"),
    "resolution off the grid": Wrong({"dataset.resolution": 500}, "spec.dataset.resolution", "use 512, 768"),
    "resolution in sides": Wrong({"dataset.resolution": [512, 512]}, "spec.dataset.resolution", "an integer"),
    "resolution with spaces": Wrong({"dataset.resolution": "512 x 512"}, "spec.dataset.resolution", "must match"),
    "resolution with a comma": Wrong({"dataset.resolution": "768,512"}, "spec.dataset.resolution", "must match"),
    "resolution too small": Wrong({"dataset.resolution": 32}, "spec.dataset.resolution", "from 64 to 4096"),
    "text of a resolution off the grid": Wrong(
        {"dataset.resolution": "500x512"}, "spec.dataset.resolution", "multiples of 8", only_python=True
    ),
    "step off the grid": Wrong({"dataset.buckets.stepPx": 20}, "spec.dataset.buckets.stepPx", "a multiple of 8"),
    "step above the resolution": Wrong(
        {"dataset.buckets.stepPx": 512, "dataset.resolution": 256}, "buckets.stepPx", "lower it"
    ),
    "step above a side": Wrong(
        {"dataset.buckets.stepPx": 320, "dataset.resolution": "512x256"}, "buckets.stepPx", "lower it", only_python=True
    ),
    "least side off the grid": Wrong({"dataset.buckets.minPx": 100}, "spec.dataset.buckets.minPx", "multiple of 8"),
    "least side off the steps": Wrong({"dataset.buckets": {"minPx": 320, "stepPx": 96}}, "minPx", "multiple of stepPx"),
    "largest side off the steps": Wrong({"dataset.buckets.maxPx": 1000}, "maxPx", "multiple of stepPx; round"),
    "sides swapped": Wrong({"dataset.buckets": {"minPx": 1024, "maxPx": 512}}, "minPx must not be", "swap"),
    "least side above the resolution": Wrong({"dataset.buckets.minPx": 768}, "buckets.minPx", "lower it"),
    "largest side below the resolution": Wrong({"dataset.buckets.maxPx": 256}, "buckets.maxPx", "raise it"),
    "least side above a side": Wrong(
        {"dataset.buckets.minPx": 640, "dataset.resolution": "768x512"},
        "spec.dataset.buckets.minPx",
        "lower it",
        only_python=True,
    ),
    "largest side below a side": Wrong(
        {"dataset.buckets.maxPx": 640, "dataset.resolution": "768x512"},
        "spec.dataset.buckets.maxPx",
        "raise it",
        only_python=True,
    ),
    "least side of the default above a side": Wrong(
        {"dataset.buckets": {"minPx": 4096, "maxPx": 4096}}, "buckets.minPx must", "lower it"
    ),
    "filter unknown": Wrong({"dataset.buckets.resizeFilter": "Area"}, "buckets.resizeFilter", "'Box'"),
    "crop position unknown": Wrong({"dataset.buckets.cropPosition": "Face"}, "buckets.cropPosition", "'Top'"),
    "kohya's name of upscale": Wrong({"dataset.buckets.noUpscale": True}, "buckets.noUpscale", "did you mean upscale?"),
    "extension without a dot": Wrong({"dataset.captions.extension": "txt"}, "captions.extension", "must match"),
    "extension of pictures": Wrong({"dataset.captions.extension": ".png"}, "extension is that of", "such as .txt"),
    "extension of pictures in a subset": Wrong(
        subsets({**A, "captions": {"extension": ".JPG"}}), "subsets[0].captions", "such as .txt"
    ),
    "missing captions left": Wrong({"dataset.captions.missing": "Skip"}, "captions.missing", "'UseFolderName'"),
    "missing captions by nobody": Wrong(
        {"dataset.captions.missing": "Generate"}, "captions.generate does not say", "add generate.modelUri"
    ),
    "missing captions of a subset by nobody": Wrong(
        subsets({**A, "captions": {"missing": "Generate"}}), "captions.generate does not say", "add generate.modelUri"
    ),
    "captions for nothing": Wrong({"dataset.captions.generate": BLIP}, "captions.generate has no effect", "remove"),
    "captions by a model without place": Wrong(
        {"dataset.captions": {"missing": "Generate", "generate": {}}}, "captions.generate.modelUri", "add it"
    ),
    "captions of no length": Wrong(
        {"dataset.captions": {"missing": "Generate", "generate": {**BLIP, "minTokens": 60}}}, "minTokens must", "swap"
    ),
    "captions by too many beams": Wrong(
        {"dataset.captions": {"missing": "Generate", "generate": {**BLIP, "beams": 99}}}, "generate.beams", "at most 16"
    ),
    "trigger of the captions in words": Wrong(
        {"dataset.captions": {"missing": "Generate", "generate": {**BLIP, "trigger": "zwx"}}},
        "generate.trigger",
        "'FolderName'",
    ),
    "tokens between the chunks": Wrong({"dataset.captions.maxTokens": 100}, "captions.maxTokens", "75, 150 or 225"),
    "tokens with start and end": Wrong({"dataset.captions.maxTokens": 77}, "captions.maxTokens", "75, 150 or 225"),
    "separator of nothing": Wrong({"dataset.captions.separator": ""}, "captions.separator", "at least 1 character"),
    "long separator": Wrong({"dataset.captions.separator": " and then "}, "captions.separator", "at most 8"),
    "two separators alike": Wrong({"dataset.captions.secondarySeparator": ","}, "secondarySeparator", "change one"),
    "marker like the separator": Wrong(
        {"dataset.captions": {"separator": ";", "keepTokensSeparator": ";"}}, "keepTokensSeparator", "change one"
    ),
    "separators of a subset alike": Wrong(
        subsets({**A, "captions": {"separator": ";;", "secondarySeparator": ";;"}}), "subsets[0].captions", "change one"
    ),
    "separator of a subset like a marker of the dataset": Wrong(
        {**subsets({**A, "captions": {"separator": "|||"}}), "dataset.captions": {"keepTokensSeparator": "|||"}},
        "spec.dataset.subsets[0].captions: keepTokensSeparator",
        "change one",
        only_python=True,
    ),
    "warm-up of tokens of a subset above the steps": Wrong(
        {**subsets({**A, "captions": {"tokenWarmup": {"steps": 11}}}), "training.maxSteps": 10},
        "spec.dataset.subsets[0].captions.tokenWarmup.steps",
        "lower it",
        only_python=True,
    ),
    "tokens kept below 0": Wrong({"dataset.captions.keepTokens": -1}, "captions.keepTokens", "at least 0"),
    "dropout in percent": Wrong({"dataset.captions.dropoutFraction": 5}, "captions.dropoutFraction", "at most 1"),
    "dropout of tags below 0": Wrong(
        {"dataset.captions.tagDropoutFraction": -0.1}, "captions.tagDropoutFraction", "at least 0"
    ),
    "dropout every half epoch": Wrong(
        {"dataset.captions.dropoutEveryNEpochs": 0.5}, "captions.dropoutEveryNEpochs", "an integer"
    ),
    "warm-up of tokens without length": Wrong(
        {"dataset.captions.tokenWarmup": {}}, "spec.dataset.captions.tokenWarmup", "exactly one of steps and fraction"
    ),
    "warm-up of tokens of two lengths": Wrong(
        {"dataset.captions.tokenWarmup": {"steps": 5, "fraction": 0.5}}, "tokenWarmup", "exactly one"
    ),
    "warm-up of tokens from none": Wrong(
        {"dataset.captions.tokenWarmup": {"minTags": 0, "steps": 5}}, "tokenWarmup.minTags", "at least 1"
    ),
    "warm-up of tokens above the steps": Wrong(
        {"dataset.captions.tokenWarmup": {"steps": 11}, "training.maxSteps": 10}, "captions.tokenWarmup.steps", "lower"
    ),
    "prefix too long": Wrong({"dataset.captions.prefix": "a" * 1025}, "captions.prefix", "at most 1024 characters"),
    "shuffle in words": Wrong({"dataset.captions.shuffle": "true"}, "captions.shuffle", "a boolean"),
    "weights in a subset": Wrong(subsets({**A, "captions": {"weighted": True}}), "captions.weighted", KNOWN),
    "colour with the cache": Wrong({"dataset.augmentation.color": True}, "color", "latentCache to None"),
    "random crop with the cache": Wrong({"dataset.augmentation": CROPPED}, "randomCrop", "set latentVariants"),
    "faces with the cache": Wrong({"dataset.augmentation": FACES}, "faceCropRange", "set latentVariants"),
    "colour in a subset with the cache": Wrong(
        subsets({**A, "augmentation": {"color": True}}), "color", "set latentVariants"
    ),
    "two ways to crop": Wrong(
        {"dataset.augmentation": {**CROPPED, **FACES}, "dataset.latentVariants": 4}, "randomCrop and face", "remove one"
    ),
    "two ways to crop in a subset": Wrong(
        {**subsets({**A, "augmentation": CROPPED}), "dataset.augmentation": FACES, "dataset.latentVariants": 4},
        "subsets[].augmentation",
        "set randomCrop to false",
    ),
    "faces from large to small": Wrong(
        {"dataset.augmentation": {"faceCropRange": {"minimum": 3, "maximum": 2}}}, "minimum must not", "swap them"
    ),
    "faces larger than the crop": Wrong(
        {"dataset.augmentation": {"faceCropRange": {"minimum": 0.5, "maximum": 2}}}, "Range.minimum", "at least 1"
    ),
    "faces to no end": Wrong(
        {"dataset.augmentation": {"faceCropRange": {"minimum": 2}}}, "faceCropRange.maximum", "add it"
    ),
    "mask unknown": Wrong({"dataset.mask": "alpha"}, "spec.dataset.mask", "'Alpha'"),
    "cache unknown": Wrong({"dataset.latentCache": "RAM"}, "spec.dataset.latentCache", "'Memory'"),
    "variants without a change": Wrong({"dataset.latentVariants": 4}, "latentVariants", "remove it"),
    "variants without a cache": Wrong(
        {"dataset.augmentation": CROPPED, "dataset.latentVariants": 4, "dataset.latentCache": "None"},
        "latentVariants has no effect while latentCache is None",
        "remove it",
    ),
    "variants of none": Wrong(
        {"dataset.augmentation": CROPPED, "dataset.latentVariants": 0}, "dataset.latentVariants", "at least 1"
    ),
    "place of another cache": Wrong({"dataset.cacheUri": "s3://lora/cache"}, "cacheUri", "change latentCache"),
    "store without a place": Wrong({**subsets(A), "dataset.latentCache": "Store"}, "latentCache Store", "set it"),
    "store beside the hub": Wrong(
        {"dataset.uri": "hf://a/b", "dataset.latentCache": "Store"}, "latentCache Store needs cacheUri", "set it"
    ),
    "cache on the hub": Wrong(
        {"dataset.latentCache": "Store", "dataset.cacheUri": "hf://a/b"}, "spec.dataset.cacheUri", S3
    ),
    "cache among the pictures": Wrong(
        {"dataset.latentCache": "Store", "dataset.cacheUri": "s3://lora/data/cache"}, "cacheUri must not", "choose"
    ),
    "output inside the cache": Wrong(
        {"dataset.latentCache": "Store", "dataset.cacheUri": "s3://lora/runs"}, "dataset.cacheUri", "somewhere else"
    ),
    "workers below 0": Wrong({"dataset.workers": -1}, "spec.dataset.workers", "at least 0"),
    "too many workers": Wrong({"dataset.workers": 1000}, "spec.dataset.workers", "at most 64"),
    "most held out": Wrong({"dataset.validationFraction": 0.9}, "dataset.validationFraction", "at most 0.5"),
    "store with keys in the file": Wrong({"dataset.storage": {"secretKey": "x"}}, "dataset.storage.secretKey", KNOWN),
    "store with certificates of http": Wrong(
        {"dataset.storage": {"endpoint": "http://minio:9000", "caBundleRef": {"name": "ca", "key": "ca.crt"}}},
        "spec.dataset.storage",
        "change endpoint",
    ),
    "store by its name": Wrong({"dataset.storage": "minio"}, "spec.dataset.storage", "an object"),
    "class pictures without uri": Wrong(
        {**subsets(A), "dataset.regularization": {"uri": "s3://lora/reg"}}, "regularization.uri", "isRegularization"
    ),
    "class pictures among the pictures": Wrong(
        {"dataset.regularization.uri": "s3://lora/data"}, "regularization.uri must differ", "a folder of their own"
    ),
    "class weight below 0": Wrong({"dataset.regularization.lossWeight": -1}, "regularization.lossWeight", "at least 0"),
    "class target unknown": Wrong({"dataset.regularization.target": "Base"}, "regularization.target", "'BaseModel'"),
    "weight of no class pictures": Wrong(
        {**subsets(A), "dataset.regularization": {"target": "BaseModel"}}, "regularization has no effect", "add one"
    ),
    "only class pictures": Wrong(subsets(CLASS), "subsets holds only regularisation", "add the folder"),
    "subset without uri": Wrong(subsets({"repeats": 2}), "spec.dataset.subsets[0].uri", "add it"),
    "subset of no repeats": Wrong(subsets({**A, "repeats": 0}), "subsets[0].repeats", "at least 1"),
    "subset in kohya's words": Wrong(subsets({**A, "numRepeats": 2}), "numRepeats", "did you mean repeats?"),
    "subset twice": Wrong(subsets(A, B, A), "subsets names a folder twice", "join the two entries"),
    "subset twice, once with a slash": Wrong(
        subsets(A, {"uri": "s3://b-b/1/"}), "spec.dataset.subsets[1].uri", "join the two entries", only_python=True
    ),
    "too many subsets": Wrong(
        subsets(*({"uri": f"s3://b-b/{i}"} for i in range(65))), "spec.dataset.subsets", "at most 64 entries"
    ),
}
