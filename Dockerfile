# Stages:
#   wheel                 builds the project's wheel
#   operator-environment  virtual environment of the operator: no torch
#   trainer-environment   virtual environment of the trainer: torch with CUDA, xformers
#   operator              image of the operator   docker build --target operator --tag lora-operator:0.1.0 .
#   trainer               image of the trainer    docker build --target trainer --tag lora-trainer:0.1.0 .
#
# For builds that can be repeated give the base image with its digest:
#   --build-arg PYTHON_IMAGE=docker.io/library/python@sha256:…

ARG PYTHON_IMAGE=docker.io/library/python:3.11.14-slim-bookworm


FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY constraints.txt ./
RUN ["pip", "install", "--constraint", "constraints.txt", "hatchling"]
COPY . ./
RUN ["pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "/wheels", "."]


FROM ${PYTHON_IMAGE} AS operator-environment
ARG VERSION=0.1.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python", "-m", "venv", "/opt/lora"]
COPY constraints.txt /
COPY --from=wheel /wheels /wheels
# The wheel by its path: an index could hold another project of the same name.
RUN /opt/lora/bin/pip install --constraint /constraints.txt \
    "lora-operator[operator] @ file:///wheels/lora_operator-${VERSION}-py3-none-any.whl"


FROM ${PYTHON_IMAGE} AS trainer-environment
ARG VERSION=0.1.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["python", "-m", "venv", "/opt/lora"]
COPY constraints.txt /
COPY --from=wheel /wheels /wheels
# The wheels of torch for Linux bring the CUDA libraries; the node brings the driver.
RUN /opt/lora/bin/pip install --constraint /constraints.txt \
    "lora-operator[trainer,gpu] @ file:///wheels/lora_operator-${VERSION}-py3-none-any.whl"


FROM ${PYTHON_IMAGE} AS operator
LABEL org.opencontainers.image.title="lora-operator" \
      org.opencontainers.image.description="Kubernetes operator for LoRA training of Stable Diffusion" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=operator-environment /opt/lora /opt/lora
ENV PATH=/opt/lora/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Memory that a start over thousands of trainings took goes back to the node: a quarter of it, see docs/benchmarks.md.
ENV MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536
WORKDIR /opt/lora
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "lora_operator"]


FROM ${PYTHON_IMAGE} AS trainer
LABEL org.opencontainers.image.title="lora-trainer" \
      org.opencontainers.image.description="LoRA trainer for Stable Diffusion" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=trainer-environment /opt/lora /opt/lora
ENV PATH=/opt/lora/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Which GPUs a pod sees is the device plugin's business; the image only says what it uses of them.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The user has no entry in /etc/passwd, and torch asks for its name.
ENV USER=lora
WORKDIR /opt/lora
USER 65532:65532
EXPOSE 9400
ENTRYPOINT ["lora"]
