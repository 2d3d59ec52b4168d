"""Names that operator, trainer and chart must agree on: API group, labels, paths inside the pod."""

GROUP = "lora-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "LoraTraining"
PLURAL = "loratrainings"
SINGULAR = "loratraining"
SHORT_NAME = "lt"
CATEGORY = "ml"

MAX_NAME_LENGTH = 52
"""A pod of the third attempt is called `<name>-a3-0-xxxxx`, and Kubernetes names end at 63 characters."""

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_NAME = "app.kubernetes.io/name"
LABEL_TRAINING = f"{GROUP}/training"
LABEL_ATTEMPT = f"{GROUP}/attempt"
MANAGER = "lora-operator"
APP_NAME = "lora-training"
LABEL_STAGE = f"{GROUP}/stage"
"""What a Job or pod does."""
STAGE_TRAINING = "training"
STAGE_PREFLIGHT = "preflight"
"""Checks the data before a GPU is asked for."""
STAGE_EVALUATION = "evaluation"
"""Evaluates a training that has succeeded again, for `spec.evaluation` was changed."""
ANNOTATION_SPEC_DIGEST = f"{GROUP}/spec-digest"
ANNOTATION_EVALUATION_DIGEST = f"{GROUP}/evaluation-digest"
"""On a Job that evaluates: digest of the `spec.evaluation` that it is about."""
ANNOTATION_TRAINING = f"{GROUP}/training"
"""On a pod: the resolved LoraTraining as JSON, which the downward API gives to its containers as a file."""

ANNOTATION_CHECKPOINT = f"{GROUP}/checkpoint-requested-at"
"""On a LoraTraining: any text. Another one than before asks for a state after the next step."""
MAX_REQUEST_LENGTH = 256
"""So many characters of that text count."""

TRAINER_CONTAINER = "trainer"
PREFLIGHT_CONTAINER = "preflight"
"""The init container that checks the data, where a profile wants it in the training's own pod."""
TRAINER_PORT = 9400
"""TCP port of the trainer's `/progress` (JSON), `/metrics` (Prometheus) and `/checkpoint`."""
TRAINER_PORT_NAME = "metrics"

CONFIG_DIR = "/etc/lora/config"
CONFIG_FILE = "training.yaml"
CREDENTIALS_DIR = "/etc/lora/credentials"
"""Files named like the AWS variables (`AWS_ACCESS_KEY_ID`, …), from `storage.credentialsSecretRef`."""
HUB_TOKEN_DIR = "/etc/lora/hub"
HUB_TOKEN_FILE = "token"
CA_BUNDLE_DIR = "/etc/lora/ca"
CA_BUNDLE_FILE = "ca.crt"
CLAIMS_DIR = "/mnt/claims"
"""A `pvc://claim/path` URI is read at `/mnt/claims/claim/path`."""
WORK_DIR = "/var/lora"
"""Scratch space of one attempt: fetched data, files on their way to the store."""
CACHE_DIR = "/var/cache/lora"
"""The claim of `pod.cacheVolumeClaim`: fetched models and pictures, latents."""
SHARED_MEMORY_DIR = "/dev/shm"
TERMINATION_LOG = "/dev/termination-log"

ENV_CREDENTIALS_DIR = "LORA_CREDENTIALS_DIR"
ENV_HUB_TOKEN_FILE = "LORA_HUB_TOKEN_FILE"
ENV_CA_BUNDLE = "LORA_CA_BUNDLE"
ENV_CLAIMS_DIR = "LORA_CLAIMS_DIR"
ENV_WORK_DIR = "LORA_WORK_DIR"
ENV_TERMINATION_LOG = "LORA_TERMINATION_LOG"
ENV_LISTEN_ADDRESS = "LORA_LISTEN_ADDRESS"
ENV_ATTEMPT = "LORA_ATTEMPT"
ENV_POD_NAME = "LORA_POD_NAME"
ENV_POD_UID = "LORA_POD_UID"
ENV_CACHE_DIR = "LORA_CACHE_DIR"
ENV_GRACE_SECONDS = "LORA_GRACE_SECONDS"
"""How long the pod lives after it was told to stop (terminationGracePeriodSeconds)."""
ENV_NODE_RANK = "LORA_NODE_RANK"
"""Which of several pods of a training this one is, from 0."""
ENV_RENDEZVOUS = "LORA_RENDEZVOUS"
"""`host:port` where the first of several pods waits for the others."""
RENDEZVOUS_PORT = 29500
"""TCP port of that, the one that torchrun takes as well."""


def job_name(training: str, attempt: int) -> str:
    """Name of the Job of one attempt (1-based): deterministic, so creating it twice is a conflict."""
    return f"{training}-a{attempt}"


def preflight_job_name(training: str) -> str:
    """Name of the Job that checks a training's data."""
    return f"{training}-data"


def evaluation_job_name(training: str, generation: int) -> str:
    """Name of the Job that evaluates a finished training as this generation of its spec asks for."""
    return f"{training}-e{generation}"


def service_name(training: str) -> str:
    """Name of the headless Service by which several pods of a training find each other."""
    return f"{training}-nodes"


def rendezvous(training: str, attempt: int, namespace: str) -> str:
    """`host:port` at which the pods of an attempt meet: the first of them, by the name that its Service gives it."""
    return f"{job_name(training, attempt)}-0.{service_name(training)}.{namespace}.svc:{RENDEZVOUS_PORT}"


def section_dir(folder: str, section: str) -> str:
    """Where the credentials or certificates of `spec.<section>.storage` are mounted, beside those of `spec.storage`."""
    return f"{folder}-{section.lower()}"
