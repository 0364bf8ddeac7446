# tagmask with the page and ONNX, for a CPU or an NVIDIA GPU:
#
#     docker build -t tagmask .                              # CPU
#     docker build -t tagmask --build-arg TORCH=cu130 .      # GPU: torch's build for CUDA 13.0
#
# docs/quickstart.md says how to run it.
FROM python:3.12-slim

# The last part of an address below https://download.pytorch.org/whl/: cpu, cu126, cu128, cu130, ...
ARG TORCH=cpu

# Whoever runs it may write here: weights from the hub are cached in /cache.
RUN mkdir -m 1777 /cache /work
ENV HF_HOME=/cache/huggingface TORCH_HOME=/cache/torch MPLCONFIGDIR=/cache/matplotlib HOME=/cache

# torch first, for it is large and changes seldom.
RUN pip install --no-cache-dir --index-url "https://download.pytorch.org/whl/${TORCH}" "torch>=2.11" "torchvision>=0.26"

COPY pyproject.toml README.md LICENSE /src/
COPY src /src/src
RUN pip install --no-cache-dir "/src[web,onnx]"

USER 1000
WORKDIR /work
ENTRYPOINT ["tagmask"]
CMD ["--help"]
