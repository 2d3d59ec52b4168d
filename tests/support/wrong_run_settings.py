"""Settings of training, output and cluster that cannot work; the other sections lie in `wrong_settings`."""

from typing import Any

from tests.support.wrong_settings import KNOWN, S3, A, Wrong, subsets


def _loss(**fields: Any) -> dict[str, Any]:
    return {"training.loss": fields}


def _prompt(**fields: Any) -> dict[str, Any]:
    return {"samples.prompts": [{"prompt": "a cat", **fields}]}


TRAINING: dict[str, Wrong] = {
    "no epoch": Wrong({"training.epochs": 0}, "spec.training.epochs", "at least 1"),
    "epochs in text": Wrong({"training.epochs": "10"}, "spec.training.epochs", "an integer"),
    "no steps": Wrong({"training.maxSteps": 0}, "spec.training.maxSteps", "at least 1"),
    "kohya's name of steps": Wrong({"training.maxTrainSteps": 10}, "maxTrainSteps", "did you mean maxSteps?"),
    "batch of 0": Wrong({"training.batchSize": 0}, "spec.training.batchSize", "at least 1"),
    "batch of 512": Wrong({"training.batchSize": 512}, "spec.training.batchSize", "at most 256"),
    "accumulation of 0": Wrong(
        {"training.gradientAccumulationSteps": 0}, "training.gradientAccumulationSteps", "at least 1"
    ),
    "precision unknown": Wrong({"training.precision": "float16"}, "spec.training.precision", "'bf16', 'fp16' or"),
    "fp16 on the CPU": Wrong(
        {"training.precision": "fp16", "parallelism.gpusPerNode": 0}, "training.precision", "use bf16 or fp32"
    ),
    "full precision of fp32": Wrong({"training": {"precision": "fp32", "fullPrecision": True}}, "fullPrecision", "set"),
    "seed below 0": Wrong({"training.seed": -1}, "spec.training.seed", "at least 0"),
    "seed of 64 bits": Wrong({"training.seed": 2**33}, "spec.training.seed", "at most 4294967295"),
    "attention unknown": Wrong({"training.attention": "flash"}, "spec.training.attention", "'sdpa' or 'xformers'"),
    "compiled": Wrong({"training.compile": True}, "training.compile", "not supported yet; leave it out or use false"),
    "average that keeps all": Wrong({"training.ema": {"decay": 1}}, "spec.training.ema.decay", "less than 1"),
    "average that keeps nothing": Wrong({"training.ema": {"decay": 0}}, "spec.training.ema.decay", "more than 0"),
    "average switched on": Wrong({"training.ema": True}, "spec.training.ema", "an object"),
    "average never updated": Wrong(
        {"training.ema": {"everySteps": 11}, "training.maxSteps": 10}, "training.ema.everySteps", "lower it"
    ),
    "distance unknown": Wrong(_loss(type="mse"), "spec.training.loss.type", "'l2', 'l1'"),
    "kohya's name of distance": Wrong(_loss(lossType="l2"), "spec.training.loss.lossType", KNOWN),
    "gamma of 0": Wrong(_loss(minSnrGamma=0), "spec.training.loss.minSnrGamma", "more than 0"),
    "two weights of timesteps": Wrong(
        _loss(minSnrGamma=5, debiasedEstimation=True), "debiasedEstimation", "remove one"
    ),
    "noise offset of 2": Wrong(_loss(noiseOffset=2), "spec.training.loss.noiseOffset", "at most 1"),
    "adaptive offset of none": Wrong(_loss(adaptiveNoiseScale=0.1), "adaptiveNoiseScale", "set noiseOffset or remove"),
    "random offset of none": Wrong(_loss(noiseOffsetRandomStrength=True), "noiseOffsetRandomStrength", "set noiseO"),
    "pyramid of no levels": Wrong(_loss(multiresNoiseIterations=0), "loss.multiresNoiseIterations", "at least 1"),
    "discount of no pyramid": Wrong(_loss(multiresNoiseDiscount=0.3), "multiresNoiseDiscount", "set multiresNoiseIt"),
    "perturbation below 0": Wrong(_loss(ipNoiseGamma=-0.1), "loss.ipNoiseGamma", "more than 0"),
    "random perturbation of none": Wrong(
        _loss(ipNoiseGammaRandomStrength=True), "ipNoiseGammaRandomStrength", "set ip"
    ),
    "huber's c of l2": Wrong(_loss(huberC=0.1), "huberC", "change type"),
    "huber's schedule of l1": Wrong(_loss(type="l1", huberSchedule="snr"), "huberSchedule", "change type"),
    "huber's scale of l2": Wrong(_loss(huberScale=2, huberSchedule="constant"), "huberScale", "change type"),
    "huber's scale of snr": Wrong(_loss(type="huber", huberScale=2), "huberScale", "set huberSchedule to constant"),
    "huber's schedule unknown": Wrong(_loss(type="huber", huberSchedule="linear"), "huberSchedule", "'exponential'"),
    "timesteps swapped": Wrong(_loss(minTimestep=600, maxTimestep=400), "minTimestep", "swap or change"),
    "no timestep": Wrong(_loss(minTimestep=500, maxTimestep=500), "minTimestep must be smaller", "change"),
    "timestep of 1001": Wrong(_loss(maxTimestep=1001), "spec.training.loss.maxTimestep", "at most 1000"),
    "zero SNR of epsilon": Wrong(
        {"baseModel.prediction": "epsilon", **_loss(zeroTerminalSnr=True)}, "loss.zeroTerminalSnr", "remove them"
    ),
    "scaled v of epsilon": Wrong(
        {"baseModel.prediction": "epsilon", **_loss(scaleVPredictionLikeNoise=True)}, "scaleVPredictionLike", "remove"
    ),
    "v-like loss of v": Wrong(
        {"baseModel.prediction": "v_prediction", **_loss(vPredictionLikeLoss=0.5)}, "vPredictionLikeLoss", "remove it"
    ),
    "losses of two predictions": Wrong(
        _loss(vPredictionLikeLoss=0.5, zeroTerminalSnr=True), "vPredictionLikeLoss is for noise", "remove what"
    ),
}
OUTPUT: dict[str, Wrong] = {
    "no output": Wrong({"output": None}, "spec.output is", "missing; add it"),
    "output to the hub": Wrong({"output.uri": "hf://a/b"}, "spec.output.uri", S3),
    "output among the pictures": Wrong({"output.uri": "s3://lora/data/out"}, "dataset.uri", "write somewhere else"),
    "output in a subset": Wrong({**subsets(A), "output.uri": "s3://b-b/1/out"}, "dataset.subsets", "write somewhere"),
    "output among the class pictures": Wrong(
        {"dataset.regularization.uri": "s3://lora/runs"}, "dataset.regularization.uri", "write somewhere else"
    ),
    "output in the base model": Wrong({"output.uri": "s3://models/sd15/lora"}, "baseModel.uri", "write somewhere else"),
    "file name with a folder": Wrong({"output.name": "a/b"}, "spec.output.name", "must match"),
    "file name that hides": Wrong({"output.name": ".hina"}, "spec.output.name", "must match"),
    "format unknown": Wrong({"output.formats": ["ckpt"]}, "spec.output.formats[0]", "'kohya' or 'diffusers'"),
    "no format": Wrong({"output.formats": []}, "spec.output.formats", "at least 1 entr"),
    "only diffusers": Wrong({"output.formats": ["diffusers"]}, "formats must hold kohya", "add it"),
    "format twice": Wrong({"output.formats": ["kohya", "kohya"]}, "formats names a format twice", "remove one"),
    "precision of the file": Wrong({"output.precision": "fp8"}, "spec.output.precision", "'fp16', 'bf16' or 'fp32'"),
    "comment too long": Wrong({"output.comment": "a" * 1025}, "spec.output.comment", "at most 1024 characters"),
    "card unknown": Wrong({"output.card": {"licence": "MIT"}}, "output.card.licence", "did you mean license?"),
    "store of the output before an address": Wrong(
        {"output.storage": {"endpoint": "https://10.0.0.1", "addressing": "Virtual"}}, "spec.output.storage", "use Path"
    ),
    "store of the output with a misspelt field": Wrong(
        {"output.storage": {"endpoit": "https://s3"}}, "spec.output.storage.endpoit", "did you mean endpoint?"
    ),
    "saved every 0 epochs": Wrong({"checkpoints.everyEpochs": 0}, "spec.checkpoints.everyEpochs", "at least 1"),
    "saved every 0 steps": Wrong({"checkpoints.everySteps": 0}, "spec.checkpoints.everySteps", "at least 1"),
    "saved after more steps than a run has": Wrong(
        {"checkpoints.everySteps": 1_000_001}, "spec.checkpoints.everySteps", "at most 1000000"
    ),
    "saved every n steps in text": Wrong({"checkpoints.everySteps": "100"}, "checkpoints.everySteps", "an integer"),
    "saved every second": Wrong({"checkpoints.everySeconds": 1}, "spec.checkpoints.everySeconds", "at least 30"),
    "saved every other day": Wrong(
        {"checkpoints.everySeconds": 172800}, "spec.checkpoints.everySeconds", "at most 86400"
    ),
    "saved after a duration": Wrong({"checkpoints.everySeconds": "15m"}, "checkpoints.everySeconds", "an integer"),
    "no state kept": Wrong({"checkpoints.keepLast": 0}, "spec.checkpoints.keepLast", "at least 1"),
    "every state kept": Wrong({"checkpoints.keepLast": 1000}, "spec.checkpoints.keepLast", "at most 100"),
    "states in words": Wrong({"checkpoints.saveState": "Always"}, "spec.checkpoints.saveState", "a boolean"),
    "no state every n steps": Wrong(
        {"checkpoints": {"saveState": False, "everySteps": 100}}, "everySteps has no effect", "remove it"
    ),
    "kohya's name of the interval": Wrong(
        {"checkpoints.saveEveryNSteps": 5}, "checkpoints.saveEveryNSteps", "did you mean everySteps?"
    ),
    "change unknown": Wrong({"resume.onChange": "Ignore"}, "spec.resume.onChange", "'Refuse' or 'Continue'"),
    "change in small letters": Wrong({"resume.onChange": "continue"}, "spec.resume.onChange", "'Continue'"),
    "misspelt change": Wrong({"resume.onChnage": "Continue"}, "spec.resume.onChnage", "did you mean onChange?"),
    "resumed by a word": Wrong({"resume": "Continue"}, "spec.resume", "an object"),
    "kohya's name of resume": Wrong({"resume.from": "state/step-5"}, "spec.resume.from", KNOWN),
    "drawn every 0 epochs": Wrong({"samples.everyEpochs": 0}, "spec.samples.everyEpochs", "at least 1"),
    "prompt of nothing": Wrong(_prompt(prompt=""), "samples.prompts[0].prompt", "at least 1 character"),
    "prompt in text": Wrong({"samples.prompts": ["a cat --w 512"]}, "spec.samples.prompts[0]", "an object"),
    "width off the grid": Wrong(_prompt(widthPx=500), "samples.prompts[0].widthPx", "a multiple of 8"),
    "too few drawing steps": Wrong(_prompt(steps=0), "samples.prompts[0].steps", "at least 1"),
    "guidance below 1": Wrong(_prompt(guidance=0.5), "samples.prompts[0].guidance", "at least 1"),
    "sampler unknown": Wrong(_prompt(sampler="Euler a"), "samples.prompts[0].sampler", "'euler_a'"),
    "weight of a million": Wrong(_prompt(weight=1000000.0), "samples.prompts[0].weight", "at most 2"),
    "no hidden state": Wrong(_prompt(clipSkip=0), "samples.prompts[0].clipSkip", "at least 1"),
    "too many prompts": Wrong({"samples.prompts": [{"prompt": "a"}] * 33}, "spec.samples.prompts", "at most 32"),
    "seed and seeds": Wrong({"evaluation": {"grid": {"seed": 1, "seeds": [2]}}}, "spec.evaluation.grid", "keep one"),
    "grid of too many pictures": Wrong(
        {
            "evaluation": {
                "grid": {"epochs": list(range(1, 65)), "weights": [n / 32 for n in range(32)], "seeds": [1, 2]}
            }
        },
        "spec.evaluation.grid",
        "shorten a list",
    ),
    "grid of no weight": Wrong({"evaluation": {"grid": {"weights": []}}}, "spec.evaluation.grid.weights", "at least 1"),
    "unknown preset": Wrong(
        {"evaluation": {"grid": {"blockWeights": [{"name": "HINA4"}]}}},
        "spec.evaluation.grid.blockWeights[0]",
        "add values",
    ),
    "preset of 13": Wrong(
        {"evaluation": {"grid": {"blockWeights": [{"name": "HINA4", "values": [0.5] * 13}]}}},
        "spec.evaluation.grid.blockWeights[0]",
        "12, 17, 20 or 26 numbers",
    ),
    "block weights of sdxl": Wrong(
        {"evaluation": {"grid": {"blockWeights": [{"name": "a", "values": [1.0] * 12}]}}, "baseModel.family": "sd15"},
        "evaluation.grid.blockWeights",
        "17 or 26 numbers, and for sdxl 12 or 20",
    ),
    "block weights of sd15": Wrong(
        {"evaluation": {"grid": {"blockWeights": [{"name": "a", "values": [1.0] * 17}]}}, "baseModel.family": "sdxl"},
        "evaluation.grid.blockWeights",
        "17 or 26 numbers, and for sdxl 12 or 20",
    ),
    "early stop without measure": Wrong(
        {"evaluation": {"bestEpoch": {"by": "None"}, "earlyStop": {}}}, "spec.evaluation", "needs a measure"
    ),
    "early stop at once": Wrong({"evaluation": {"earlyStop": {"patience": 0}}}, "evaluation.earlyStop.patience", "1"),
    "judges without models": Wrong({"evaluation": {"similarity": {}}}, "spec.evaluation.similarity", "add one"),
    "too few passes": Wrong(
        {"evaluation": {"bestEpoch": {"heldOutPasses": 1}}}, "evaluation.bestEpoch.heldOutPasses", "at least 8"
    ),
}
CLUSTER: dict[str, Wrong] = {
    "endpoint without scheme": Wrong({"storage.endpoint": "minio:9000"}, "spec.storage.endpoint", "must match"),
    "endpoint with a bucket": Wrong({"storage.endpoint": "http://minio/lora"}, "spec.storage.endpoint", "must match"),
    "addressing in small letters": Wrong({"storage.addressing": "path"}, "spec.storage.addressing", "'Path'"),
    "bucket before an address": Wrong(
        {"storage": {"endpoint": "http://10.0.0.1:9000", "addressing": "Virtual"}}, "addressing Virtual", "use Path"
    ),
    "certificates of http": Wrong(
        {"storage": {"endpoint": "http://minio:9000", "caBundleRef": {"name": "ca", "key": "ca.crt"}}},
        "caBundleRef",
        "change endpoint",
    ),
    "anonymous with a Secret": Wrong(
        {"storage": {"anonymous": True, "credentialsSecretRef": {"name": "s3"}}}, "anonymous and cred", "remove one"
    ),
    "keys in the file": Wrong({"storage.accessKey": "AKIA"}, "spec.storage.accessKey", KNOWN),
    "no node": Wrong({"parallelism.nodes": 0}, "parallelism.nodes", "at least 1"),
    "more nodes than are tried": Wrong({"parallelism.nodes": 65}, "parallelism.nodes", "at most 64"),
    "more GPUs than a machine has": Wrong({"parallelism.gpusPerNode": 17}, "parallelism.gpusPerNode", "at most 16"),
    "topology without a queue": Wrong(
        {"scheduling.queueTopology": {"preferred": "rack"}}, "queueTopology has no effect", "add queueName"
    ),
    "two topologies": Wrong(
        {"scheduling": {"queueName": "q", "queueTopology": {"preferred": "rack", "required": "rack"}}},
        "spec.scheduling.queueTopology",
        "exactly one",
    ),
    "rank of torchrun": Wrong({"pod.env": [{"name": "RANK", "value": "0"}]}, "spec.pod.env[0]", "spec.parallelism"),
    "fewer than no GPU": Wrong({"parallelism.gpusPerNode": -1}, "parallelism.gpusPerNode", "at least 0"),
    "profile in capitals": Wrong({"profile": "Big"}, "spec.profile", "must match"),
    "queue in capitals": Wrong({"scheduling.queueName": "GPU"}, "spec.scheduling.queueName", "must match"),
    "queue of nothing": Wrong({"scheduling.queueName": ""}, "spec.scheduling.queueName", "at least 1 character"),
    "queue that no label can name": Wrong(
        {"scheduling.queueName": "q" * 64}, "spec.scheduling.queueName", "at most 63 characters"
    ),
    "rank in no queue": Wrong(
        {"scheduling.queuePriorityClass": "high"}, "queuePriorityClass has no effect", "add queueName"
    ),
    "rank in capitals": Wrong(
        {"scheduling": {"queueName": "q", "queuePriorityClass": "High"}}, "scheduling.queuePriorityClass", "must match"
    ),
    "rank that no label can name": Wrong(
        {"scheduling": {"queueName": "q", "queuePriorityClass": "h" * 64}}, "queuePriorityClass", "at most 63"
    ),
    "misspelt queue": Wrong({"scheduling.queue": "q"}, "spec.scheduling.queue", "did you mean queueName?"),
    "start within seconds": Wrong(
        {"scheduling.startDeadlineSeconds": 5}, "spec.scheduling.startDeadlineSeconds", "at least 60"
    ),
    "start within years": Wrong(
        {"scheduling.startDeadlineSeconds": 31536001}, "scheduling.startDeadlineSeconds", "at most 31536000"
    ),
    "start within a duration": Wrong(
        {"scheduling.startDeadlineSeconds": "1h"}, "spec.scheduling.startDeadlineSeconds", "an integer"
    ),
    "taint of no key": Wrong({"scheduling.tolerations": [{"value": "x"}]}, "tolerations[0]", "operator: Exists"),
    "taint that exists with a value": Wrong(
        {"scheduling.tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "tolerations[0]", "remove it"
    ),
    "seconds of another effect": Wrong(
        {"scheduling.tolerations": [{"key": "a", "tolerationSeconds": 5}]}, "tolerationSeconds", "change effect"
    ),
    "operator of taints unknown": Wrong(
        {"scheduling.tolerations": [{"key": "a", "operator": "In"}]}, "tolerations[0].operator", "'Exists' or 'Equal'"
    ),
    "taints as a map": Wrong({"scheduling.tolerations": {}}, "spec.scheduling.tolerations", "a list"),
    "label of a number": Wrong({"scheduling.nodeSelector": {"gpu": 1}}, "nodeSelector.gpu", "a string"),
    "node label with a space": Wrong({"scheduling.nodeSelector": {"a b": "x"}}, "scheduling.nodeSelector", "the key"),
    "node label of two words": Wrong({"scheduling.nodeSelector": {"gpu": "an A100"}}, "nodeSelector.gpu", "must match"),
    "taint with a space": Wrong(
        {"scheduling.tolerations": [{"key": "a b", "operator": "Exists"}]}, "tolerations[0].key", "must match"
    ),
    "taint of two words": Wrong(
        {"scheduling.tolerations": [{"key": "a", "value": "b c"}]}, "tolerations[0].value", "must match"
    ),
    "label with a space": Wrong({"pod.labels": {"a b": "x"}}, "pod.labels has the key 'a b'", "change the key"),
    "label of nothing": Wrong({"pod.labels": {"": "x"}}, "spec.pod.labels", "change the key"),
    "label longer than a name": Wrong({"pod.labels": {"a" * 64: "x"}}, "spec.pod.labels", "change the key"),
    "label longer than all": Wrong({"pod.labels": {"a" * 252 + "/b": "x"}}, "spec.pod.labels", "change the key"),
    "label with a prefix in capitals": Wrong({"pod.labels": {"Team.example/a": "x"}}, "pod.labels", "change the key"),
    "label with two prefixes": Wrong({"pod.labels": {"a/b/c": "x"}}, "spec.pod.labels", "change the key"),
    "label of two words": Wrong({"pod.labels": {"team": "my team"}}, "spec.pod.labels.team", "must match"),
    "label ending in a dash": Wrong({"pod.labels": {"team": "a-"}}, "spec.pod.labels.team", "must match"),
    "long label": Wrong({"pod.labels": {"team": "a" * 64}}, "spec.pod.labels.team", "at most 63 characters"),
    "annotation with a space": Wrong({"pod.annotations": {"a b": "x"}}, "spec.pod.annotations", "change the key"),
    "annotation without a name": Wrong({"pod.annotations": {"a.b/": "x"}}, "spec.pod.annotations", "change the key"),
    "reserved label": Wrong({"pod.labels": {"app.kubernetes.io/name": "x"}}, "spec.pod", "choose another prefix"),
    "label of the queue": Wrong({"pod.labels": {"kueue.x-k8s.io/queue-name": "q"}}, "spec.pod", "another prefix"),
    "annotation of ours": Wrong(
        {"pod.annotations": {"lora-operator.io/training": "{}"}}, "annotations of lora-operator.io", "another prefix"
    ),
    "annotation that loosens AppArmor": Wrong(
        {"pod.annotations": {"container.apparmor.security.beta.kubernetes.io/trainer": "unconfined"}},
        "annotations that loosen AppArmor or seccomp",
        "ask for a profile",
    ),
    "annotation that changes the network": Wrong(
        {"pod.annotations": {"v1.multus-cni.io/default-network": "kube-system/host"}}, "networks", "ask for a profile"
    ),
    "annotation that adds a device": Wrong(
        {"pod.annotations": {"io.kubernetes.cri-o.Devices": "/dev/kvm"}}, "add devices", "ask for a profile"
    ),
    "variable of nothing": Wrong({"pod.env": [{"name": "A"}]}, "spec.pod.env[0]", "exactly one of value"),
    "variable of two values": Wrong(
        {"pod.env": [{"name": "A", "value": "1", "secretKeyRef": {"name": "s", "key": "k"}}]}, "pod.env[0]", "exactly"
    ),
    "variable of ours": Wrong({"pod.env": [{"name": "LORA_X", "value": "1"}]}, "spec.pod.env[0]", "another name"),
    "variable with a dash": Wrong({"pod.env": [{"name": "A-B", "value": "1"}]}, "spec.pod.env[0].name", "must match"),
    "variable twice": Wrong(
        {"pod.env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env names a variable", "remove one"
    ),
    "GPU as a resource": Wrong(
        {"pod.resources": {"limits": {"nvidia.com/gpu": "1"}}}, "spec.pod.resources", "remove them from requests"
    ),
    "resource unknown": Wrong({"pod.resources": {"requests": {"ram": "1Gi"}}}, "resources.requests", "the key 'ram'"),
    "limit of a resource unknown": Wrong({"pod.resources": {"limits": {"a b": "1"}}}, "resources.limits", "the key"),
    "request of another resource": Wrong(
        {"pod.resources": {"requests": {"example.com/nic": "1"}}}, "requests of resources other", "add them to limits"
    ),
    "requests above the limits": Wrong(
        {"pod.resources": {"requests": {"memory": "16Gi"}, "limits": {"memory": "16G"}}},
        "requests.memory is 16Gi, more than limits.memory (16G)",
        "lower it",
        only_python=True,
    ),
    "millicores above the limits": Wrong(
        {"pod.resources": {"requests": {"cpu": "4001m"}, "limits": {"cpu": "4"}}},
        "spec.pod.resources",
        "lower it",
        only_python=True,
    ),
    "request of half of another resource": Wrong(
        {"pod.resources": {"requests": {"example.com/nic": "1"}, "limits": {"example.com/nic": "2"}}},
        "requests.example.com/nic is 1, but limits.example.com/nic is 2",
        "make them equal",
        only_python=True,
    ),
    "part of another resource": Wrong(
        {"pod.resources": {"limits": {"example.com/nic": "500m"}}},
        "limits.example.com/nic is 500m",
        "a whole number",
        only_python=True,
    ),
    "memory in small letters": Wrong({"pod.resources": {"limits": {"memory": "16ki"}}}, "limits.memory", "must match"),
    "memory beyond numbers": Wrong({"pod.resources": {"limits": {"memory": "1e100"}}}, "limits.memory", "must match"),
    "memory in words": Wrong({"pod.resources": {"limits": {"memory": "16 GB"}}}, "limits.memory", "must match"),
    "memory as a number": Wrong({"pod.resources": {"requests": {"cpu": 4}}}, "requests.cpu", "a string"),
    "shared memory of nothing": Wrong({"pod.sharedMemory": ""}, "spec.pod.sharedMemory", "at least 1 character"),
    "image of nothing": Wrong({"pod.image": ""}, "spec.pod.image", "at least 1 character"),
    "cache claim in capitals": Wrong({"pod.cacheVolumeClaim": "Cache"}, "spec.pod.cacheVolumeClaim", "must match"),
    "cache claim as a uri": Wrong({"pod.cacheVolumeClaim": "pvc://a"}, "spec.pod.cacheVolumeClaim", "must match"),
    "cache claim of nothing": Wrong({"pod.cacheVolumeClaim": ""}, "pod.cacheVolumeClaim", "at least 1 character"),
    "less than a minute": Wrong({"limits.activeSeconds": 10}, "spec.limits.activeSeconds", "at least 60"),
    "years of running": Wrong({"limits.activeSeconds": 31536001}, "spec.limits.activeSeconds", "at most 31536000"),
    "stalled within a step": Wrong({"limits.stallSeconds": 5}, "spec.limits.stallSeconds", "at least 60"),
    "stalled after days": Wrong({"limits.stallSeconds": 86401}, "spec.limits.stallSeconds", "at most 86400"),
    "stalled after a duration": Wrong({"limits.stallSeconds": "15m"}, "spec.limits.stallSeconds", "an integer"),
    "misspelt limit": Wrong({"limits.stalSeconds": 900}, "limits.stalSeconds", "did you mean stallSeconds?"),
    "retries below 0": Wrong({"retry.maxFailures": -1}, "spec.retry.maxFailures", "at least 0"),
    "retries without end": Wrong({"retry.maxFailures": 101}, "spec.retry.maxFailures", "at most 100"),
    "ladder unknown": Wrong({"retry.onOutOfMemory": "Retry"}, "spec.retry.onOutOfMemory", "'Fail' or 'Ladder'"),
    "ladder in small letters": Wrong({"retry.onOutOfMemory": "ladder"}, "spec.retry.onOutOfMemory", "'Ladder'"),
    "Kubernetes' name of retries": Wrong({"retry.backoffLimit": 3}, "spec.retry.backoffLimit", KNOWN),
    "gone before the end": Wrong({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished", "at least 0"),
    "paused in words": Wrong({"suspend": "yes"}, "spec.suspend", "a boolean"),
    "misspelt section": Wrong({"trainng": {}}, "spec.trainng", "did you mean training?"),
}
