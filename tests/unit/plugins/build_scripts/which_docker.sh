#!/bin/sh
which docker >/dev/null || exit 4
D=`which docker`
$D build -t openclaw:local $CLONE
