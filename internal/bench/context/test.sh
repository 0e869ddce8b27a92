cd /app && sha256sum -c sum.txt && [ "$(wc -c < app.txt)" -eq "$(cat size.txt)" ]
