PRAGMA application_id = 1684434800;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE attempt (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES run (id),
        trace TEXT NOT NULL,
        origin TEXT NOT NULL,
        reason TEXT NOT NULL,
        place TEXT NOT NULL,
        rule TEXT NOT NULL,
        created REAL NOT NULL
    );
INSERT INTO "attempt" VALUES(1,'search','cache-features{interval=3 branch=0},compile{mode="default"}','rules','a feature cache and compile on one denoiser','compile @unet','cache-needs-torch',1764000000.0);
CREATE TABLE candidate (
        run_id TEXT NOT NULL REFERENCES run (id),
        id INTEGER NOT NULL,
        trace TEXT NOT NULL,
        key TEXT NOT NULL,
        origin TEXT NOT NULL,
        facts TEXT NOT NULL,
        predicted REAL,
        created REAL NOT NULL,
        PRIMARY KEY (run_id, id),
        UNIQUE (run_id, key)
    );
INSERT INTO "candidate" VALUES('search',1,'compile{mode="default"}','aaaaaaaaaaaaaaaa','rules','{"steps": 50.0, "steps_kept": 1.0}',NULL,1764000000.0);
INSERT INTO "candidate" VALUES('search',2,'quantize{scheme="int8-weights"}','bbbbbbbbbbbbbbbb','variation:insert','{"steps": 50.0, "steps_kept": 1.0}',0.125,1764000000.0);
INSERT INTO "candidate" VALUES('search',3,'cache-features{interval=3 branch=0}','cccccccccccccccc','variation:fresh','{"steps": 50.0, "steps_kept": 1.0}',NULL,1764000000.0);
CREATE TABLE outcome (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        candidate_id INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('measured', 'failed')),
        json TEXT NOT NULL,
        samples TEXT GENERATED ALWAYS AS (json_extract(json, '$.latency.candidate_s')) VIRTUAL,
        baseline_samples TEXT GENERATED ALWAYS AS (json_extract(json, '$.latency.baseline_s')) VIRTUAL,
        created REAL NOT NULL,
        UNIQUE (run_id, candidate_id),
        FOREIGN KEY (run_id, candidate_id) REFERENCES candidate (run_id, id)
    );
INSERT INTO "outcome" VALUES(1,'search',1,'measured','{"build_s": 1.0, "deterministic": true, "environment": {}, "fidelity": {"baseline_prompt_accuracy": null, "feature_distance": null, "images": 8, "prompt_accuracy": null, "psnr_median": 60.0, "psnr_p10": 57.0, "psnr_worst": 54.0, "seed_distance": null, "seed_psnr_median": null, "ssim_median": 0.99, "ssim_p10": 0.0, "worst": [["a red circle", 1, 54.0]]}, "first_call_s": 0.1, "inactive": [], "latency": {"baseline_s": [1.0, 1.0, 1.0, 1.0, 1.0], "candidate_s": [0.5, 0.5, 0.5, 0.5, 0.5], "drift": 1.0, "hi": 2.060909067907034, "lo": 1.9408910670970163, "load_average": 0.0, "pairs": 5, "ratio": 2.0, "state": "normal", "stopped": "", "unit": "s"}, "load_s": 1.0, "memory": {"baseline_peak_bytes": 104857600, "peak_bytes": 104857600}, "status": "measured", "tier": "near", "version": 1, "witnesses": []}',1764000000.0);
INSERT INTO "outcome" VALUES(2,'search',2,'failed','{"kind": "crash", "log": "Segmentation fault", "message": "the worker died", "status": "failed", "version": 1}',1764000000.0);
CREATE TABLE proposal (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES run (id),
        trace TEXT NOT NULL,
        key TEXT NOT NULL,
        origin TEXT NOT NULL,
        facts TEXT NOT NULL
    );
INSERT INTO "proposal" VALUES(1,'search','compile{mode="default"}','aaaaaaaaaaaaaaaa','rules','{"steps": 50.0}');
CREATE TABLE run (
        id TEXT PRIMARY KEY,
        manifest TEXT NOT NULL,
        consulted REAL,
        created REAL NOT NULL
    );
INSERT INTO "run" VALUES('search','{"module": "0123456789abcdef", "seed": 3}',1764000000.0,1764000000.0);
COMMIT;
