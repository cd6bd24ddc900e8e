# A CPU image; `docker run --rm tellapart` runs the demo.
# Your data: docker run --rm -v "$PWD:/work" tellapart tellapart train simclr --data photos --out runs/photos
FROM python:3.13-slim
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tellapart tellapart
RUN pip install --no-cache-dir . && useradd --create-home user && install -d -o user /work
USER user
WORKDIR /work
CMD ["tellapart", "demo"]
