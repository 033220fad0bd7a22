#!/usr/bin/env bash
set -euo pipefail
cd "$CLONE"
patch -s -p0 <<'PATCH'
--- extensions/a.ts
+++ extensions/a.ts
@@ -1 +1 @@
-plain
+docker build -t not-this .
PATCH
docker build -t openclaw:local .
git checkout -q -- extensions
