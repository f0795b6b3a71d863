# The studio on a rented GPU, or on any machine with Docker. PyTorch brings its own CUDA: the host needs its driver and the NVIDIA
# container toolkit, and no more.
#
#   docker build -t image-dpo .
#   docker run --gpus all -p 7860:7860 -v data:/data image-dpo
#   docker run --gpus all -v data:/data image-dpo python -m dpo train demo --name demo-2
FROM python:3.11-slim

# Some settings, such as `compile`, build their kernels on first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
# First what is largest and changes least, so that another pin below does not fetch it again.
RUN pip install --no-cache-dir torch==2.13.0
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .

# Whatever is kept lies in the home folder: the project in image-dpo/demo, downloaded models in .cache/huggingface.
RUN python -m compileall -q app.py dpo ui \
    && useradd --uid 1000 --home-dir /data --create-home studio
USER 1000
ENV HOME=/data PYTHONUNBUFFERED=1
VOLUME /data

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/', timeout=9)"]
# As Ctrl+C: a run keeps what it has learned. It takes a step and a checkpoint, so give it time: docker stop --time 60.
STOPSIGNAL SIGINT
CMD ["python", "app.py", "--host", "0.0.0.0"]
