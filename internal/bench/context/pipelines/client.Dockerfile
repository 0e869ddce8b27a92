FROM base.example/redis:7
ENV TZ=UTC
