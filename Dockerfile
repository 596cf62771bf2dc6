# The one image of Domicile: API, worker, jobs. Everything it needs is inside; at run time nothing is fetched.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/domicile
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY residency ./residency
COPY ingestion ./ingestion
COPY service ./service
COPY policies ./policies
RUN /opt/domicile/bin/pip install --constraint constraints.txt .

FROM python:3.11.14-slim-bookworm
# Text recognition for scans; add the models of your languages.
RUN apt-get update \
 && apt-get install -y --no-install-recommends tesseract-ocr tesseract-ocr-eng tesseract-ocr-deu tesseract-ocr-fra \
 && rm -rf /var/lib/apt/lists/*
# Folders that volumes are mounted on must exist here, so that a fresh volume belongs to our account.
RUN groupadd --gid 10001 domicile \
 && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin domicile \
 && mkdir -p /var/lib/domicile/sites/de-frankfurt /var/lib/domicile/sites/fr-paris \
 && chown -R 10001:10001 /var/lib/domicile \
 && chmod -R go= /var/lib/domicile
COPY --from=build /opt/domicile /opt/domicile
ENV PATH=/opt/domicile/bin:$PATH \
    DOMICILE_HOME=/var/lib/domicile \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
USER 10001:10001
WORKDIR /var/lib/domicile
EXPOSE 8000
ENTRYPOINT ["domicile"]
CMD ["serve", "--host", "0.0.0.0"]
