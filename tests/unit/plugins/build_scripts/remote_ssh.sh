#!/bin/bash
ssh builder docker build -t openclaw:local /srv/openclaw
