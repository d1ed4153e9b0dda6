//! Run files that are read, and how those that are not are refused.

use super::*;

const RUN: &str = r#"[run]
name = "tiny"
output = "out"

[data.digits]

[architecture.mlp]
hidden = [16]

[zoo.train]
runs = 4
held-out-runs = 2

[zoo.train.recipe]
learning-rate = 0.1
batch-size = 32
duration.epochs = 2
optimizer.sgd = {}
"#;

fn parse(text: &str) -> Result<RunConfig, ConfigError> {
    RunConfig::parse(text, "run.toml", &[])
}

fn set(overrides: &[&str]) -> Result<RunConfig, ConfigError> {
    RunConfig::parse(RUN, "run.toml", &overrides.iter().map(|&o| o.to_owned()).collect::<Vec<_>>())
}

/// The message, then the hint.
fn refusal(result: Result<RunConfig, ConfigError>) -> String {
    let error = result.expect_err("the run file should be refused");
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

#[test]
fn a_misspelt_key_is_named_with_its_place_and_its_neighbor() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(RUN.contains(from), "{from}");
        assert_eq!(refusal(parse(&RUN.replace(from, to))), expected);
    };
    check(
        "held-out-runs",
        "heldout-runs",
        "run.toml:12:1: unknown key `heldout-runs`\nhint: did you mean `held-out-runs`? keys here: `runs`, `held-out-runs`, `tasks`, `grid`, `runs-at-once`, `licence`, `recipe`",
    );
    check(
        "[data.digits]",
        "[data.digit]",
        "run.toml:5:7: unknown key `digit`\nhint: did you mean `digits`? keys here: `digits`, `idx`, `npz`",
    );
    check(
        "optimizer.sgd = {}",
        "optimizer.sdg = {}",
        "run.toml:18:11: unknown key `sdg`\nhint: did you mean `sgd`? keys here: `sgd`, `adam`, `adamw`",
    );
    check(
        "optimizer.sgd = {}",
        "optimizer.sgd = { momentun = 0.5 }",
        "run.toml:18:19: unknown key `momentun`\nhint: did you mean `momentum`? keys here: `momentum`",
    );
    check("[data.digits]", "[data.digits]\nsize = 8", "run.toml:6:1: unknown key `size`\nhint: there is no key here");
    check(
        "[zoo.train]",
        "[canonicalize]\nalign = \"maen\"\n[zoo.train]",
        "run.toml:11:9: unknown value `maen`\nhint: did you mean `mean`? values here: `mean`, `consistent`, `anchor`, `none`",
    );
}

#[test]
fn wrong_types_and_missing_keys_have_a_place() {
    let check = |from: &str, to: &str, expected: &str| assert_eq!(refusal(parse(&RUN.replace(from, to))), expected);
    check("runs = 4", "runs = \"four\"", "run.toml:11:8: invalid type: string \"four\", expected usize");
    check("runs = 4", "runs = -4", "run.toml:11:8: invalid value: integer `-4`, expected usize");
    check("name = \"tiny\"\n", "", "run.toml:1:1: missing key `name`");
    check(
        "hidden = [16]",
        "hidden = [16]\nactivation = \"rleu\"",
        "run.toml:9:14: unknown activation `rleu`; known: relu, tanh, gelu, gelu-tanh, silu, sigmoid",
    );
    check(
        "output = \"out\"",
        "output = \"out\"\ndevice = \"gpu\"",
        "run.toml:4:10: `gpu` is not a device; known: auto, cpu, cuda:0, cuda:1, …",
    );
    check("output = \"out\"", "output = \"out\"\ndevice = \"cuda:0,cuda:1,cuda:0\"", "run.toml:4:10: `cuda:0` is named twice");
    check("runs = 4", "runs = 4\nruns = 5", "run.toml:12:1: duplicate key");
    check(
        "[data.digits]",
        "[data.digits]\n[data.npz]\npath = \"x\"",
        "run.toml:5:2: exactly one alternative must stand here, found several\nhint: the alternatives are table names, such as `[data.digits]` or `[data.idx]`; keep one",
    );
}

#[test]
fn values_out_of_range_have_a_place() {
    let check = |from: &str, to: &str, expected: &str| assert_eq!(refusal(parse(&RUN.replace(from, to))), expected);
    check(
        "held-out-runs = 2",
        "held-out-runs = 0",
        "run.toml:12:1: `zoo.train.held-out-runs` must be 1 or more: they are the yardstick, got 0",
    );
    check(
        "[architecture.mlp]\nhidden = [16]",
        "",
        "run.toml:9:6: `zoo.train` needs an `[architecture.mlp]` or `[architecture.file]` to train",
    );
    check(
        "[data.digits]",
        "[data.digits]\n[sample.condition]\nacuracy = 0.9",
        "run.toml:6:9: `sample.condition` names `acuracy`, which the generator is not trained on; it knows `validation-accuracy`, `step`",
    );
    check(
        "[data.digits]",
        "[data.digits]\n[canonicalize]\nalign = \"consistent\"\nby = \"activations\"",
        "run.toml:8:1: `canonicalize.by` must be `weights` where networks are aligned with each other, got activations",
    );
    check(
        "[data.digits]",
        "[data.digits]\n[evaluate]\nthresholds = [1.0, 0.5]",
        "run.toml:7:1: `evaluate.thresholds` must be positive and increasing, at least one, got [1.0, 0.5]",
    );
}

#[test]
fn runs_are_counted_or_follow_from_tasks() {
    let tasks = "[zoo.train]\nlicence = \"MIT\"\ntasks.subsets = { held-out-pairs = 3 }\n";
    let text = RUN.replace("[zoo.train]\nruns = 4\nheld-out-runs = 2\n", tasks);
    let config = parse(&text).unwrap();
    let expected = SubsetsConfig { held_out_pairs: 3, per_task: 1, ..SubsetsConfig::default() };
    assert_eq!(config.zoo.tasks(), Some(&TasksConfig::Subsets(expected)));
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let check = |text: &str, from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        assert_eq!(refusal(parse(&text.replace(from, to))), expected);
    };
    check(
        RUN,
        "held-out-runs = 2\n",
        "",
        "run.toml:10:6: `zoo.train.held-out-runs` is missing: say how many, or name tasks in `[zoo.train.tasks]` or recipes in `[zoo.train.grid]`",
    );
    check(&text, "licence = \"MIT\"", "runs = 5", "run.toml:11:1: `zoo.train.runs` follows from `zoo.train.tasks`; leave it out");
    check(
        &text,
        "held-out-pairs = 3",
        "held-out-pairs = 0",
        "run.toml:12:19: `zoo.train.tasks.subsets.held-out-pairs` must be 2 or more, or `held-out-singles` or `held-out-containing` given: they are the yardstick, and one has no standard error, got 0",
    );
    check(
        &text,
        "held-out-pairs = 3",
        "per-task = 0",
        "run.toml:12:19: `zoo.train.tasks.subsets.per-task` must be 1 or more, got 0",
    );
    check(
        &text,
        "tasks.subsets",
        "tasks.subset",
        "run.toml:12:7: unknown key `subset`\nhint: did you mean `subsets`? keys here: `subsets`",
    );
    let containing = text.replace("held-out-pairs = 3", "held-out-pairs = 0, held-out-containing = [7, 3]");
    assert!(parse(&containing).is_ok());
}

#[test]
fn recipes_are_all_combinations_of_what_is_listed() {
    let grid = "[zoo.train]\ngrid = { held-out = 5, learning-rate = [0.1, 0.01], weight-decay = [0.0, 0.001], steps = [10, 20] }\n";
    let text = RUN.replace("[zoo.train]\nruns = 4\nheld-out-runs = 2\n", grid);
    let config = parse(&text).unwrap();
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let ZooConfig::Train(TrainZooConfig { grid: Some(grid), recipe, .. }) = &config.zoo else { panic!("a grid") };
    let recipes = grid.recipes(recipe);
    assert_eq!(recipes.len(), 8);
    assert_eq!(recipes[1].0, "lr 0.1, wd 0, steps 20");
    assert_eq!((recipes[1].1.learning_rate, recipes[1].1.duration), (0.1, DurationConfig::Steps(20)));
    assert_eq!(recipes[1].1.optimizer, recipe.optimizer);
    let refused = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let error = refusal(parse(&text.replace(from, to)));
        assert!(error.contains(expected), "{error}");
    };
    refused("held-out = 5", "held-out = 7", "`zoo.train.grid.held-out` must be 5 or more");
    refused("held-out = 5", "held-out = 4", "`zoo.train.grid.held-out` must be 5 or more");
    refused("held-out = 5", "held-out = 5, per-combination = 1", "`zoo.train.grid.per-combination` must be 2 or more");
    refused("[10, 20]", "[10, 10]", "combinations of different names, got `lr 0.01, wd 0, steps 10` twice");
    refused("[zoo.train]\n", "[zoo.train]\nruns = 3\n", "`zoo.train.runs` follows from `zoo.train.grid`; leave it out");
    refused("[zoo.train]\n", "[zoo.train]\ntasks.subsets = {}\n", "leave `zoo.train.tasks` out");
    refused("learning-rate = [0.1, 0.01], weight-decay = [0.0, 0.001], ", "", "of 7 to 4096 combinations, got 2 combinations");
}

#[test]
fn what_tasks_leave_undefined_has_a_place() {
    let tasks = "[zoo.train]\ntasks.subsets = {}\n";
    let conditions = "[generator.flow]\nconditions = [{ classes = \"task\" }]\n";
    let text = RUN.replace("[zoo.train]\nruns = 4\nheld-out-runs = 2\n", tasks) + conditions;
    let with = |more: &str| parse(&(text.clone() + more));
    let config = with("[refiner]\nhinge = false\nrepulsion = 0.1\n[hyper]\ncode-weight = 0.5\ntask-weight = 0.0").unwrap();
    assert_eq!(config.hyper.as_ref().map(|hyper| (hyper.code_weight, hyper.width)), Some((0.5, 512)));
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    // What does nothing is not written: stages of earlier runs stay theirs.
    assert!(!config.to_toml().contains("members") && !config.to_toml().contains("mix"));
    let config = with("[hyper]\nmix = 0.25\ncondition-noise = 0.1\nmembers = 4").unwrap();
    assert_eq!(config.hyper.as_ref().map(|hyper| (hyper.mix, hyper.condition_noise, hyper.members)), Some((0.25, 0.1, 4)));
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let check = |more: &str, key: &str, expected: &str| {
        let refusal = refusal(with(more));
        assert!(refusal.contains(&format!("`{key}` must be {expected}")), "{refusal}");
    };
    check("[refiner]", "refiner.hinge", "`false` with `zoo.train.tasks`: it compares");
    check("[refiner]\nhinge = false\nshell = 0.1", "refiner.shell", "0 with");
    check("[refiner]\nhinge = false\n[evaluate]\nablation = true", "evaluate.ablation", "`false` with");
    check("[hyper]\ntask-weight = 0", "hyper.task-weight", "0 or more, and above 0 if `code-weight` is 0, got 0");
    check("[hyper]\nema-decay = 1", "hyper.ema-decay", "in [0, 1), got 1");
    check("[hyper]\ncondition-noise = -1", "hyper.condition-noise", "0 or more, got -1");
    check("[hyper]\nmembers = 0", "hyper.members", "between 1 and 64, got 0");
    check("[hyper]\nmix = 1.5", "hyper.mix", "between 0 and 1, got 1.5");
    for table in ["[hyper]", "[refiner]\nhinge = false"] {
        let refusal = refusal(parse(&(text.replace("{ classes = \"task\" }", "\"step\"") + table)));
        assert!(refusal.contains("`generator.flow.conditions` must have `{ classes = \"task\" }`"), "{refusal}");
    }
    let refusal = refusal(parse(&(RUN.to_owned() + "[hyper]")));
    assert!(refusal.contains("`hyper` makes networks for tasks, and those of this zoo have one"), "{refusal}");
}

#[test]
fn the_best_of_n_has_a_judge() {
    let best_of = set(&["sample.best-of={ n = 8, by = \"agreement\" }"]).unwrap();
    assert_eq!(best_of.sample.best_of, Some(BestOfConfig { n: 8, by: BestBy::Agreement }));
    assert_eq!(parse(&best_of.to_toml()).unwrap(), best_of);
    let error = refusal(set(&["sample.best-of={ n = 0, by = \"validation\" }"]));
    assert!(error.contains("`sample.best-of` must be `n` between 1 and 4096, got 0"), "{error}");
    assert!(refusal(set(&["sample.best-of={ n = 2, by = \"luck\" }"])).contains("luck"));
    let error = refusal(set(&["evaluate.best-of=7", "sample.count=8"]));
    assert!(error.contains("`evaluate.best-of` must be a divisor of `sample.count`, without `sample.best-of`, got 7"), "{error}");
}

#[test]
fn tokens_are_refused_what_the_flow_on_codes_alone_does() {
    let refused = |generator: &str, expected: &str| {
        let error = refusal(parse(&format!("{RUN}{generator}")));
        assert!(error.contains(expected), "{error}");
    };
    refused(
        "[generator.tokens]\nconditions = [\"step\"]\n[sampler.heun]\nguidance = { step = 2.0 }\n",
        "`sampler.guidance` must be left out: `[generator.flow]` alone can do that",
    );
    refused(
        "[generator.flow]\nconditions = []\n[sampler.heun]\nguidance = { step = 2.0 }\n",
        "fields that the generator is trained on",
    );
    let tasks = RUN.replace("[zoo.train]\nruns = 4\nheld-out-runs = 2\n", "[zoo.train]\ntasks.subsets = {}\n");
    let error = refusal(parse(&(tasks + "[generator.tokens]\nconditions = [{ examples = 16 }]\n")));
    assert!(error.contains("`generator.tokens.conditions` must be other fields than `examples` and `inputs`: `[generator.flow]` alone can do that, got `examples`"), "{error}");
}

#[test]
fn examples_are_a_condition_of_networks_of_many_tasks() {
    let tasks = "[zoo.train]\ntasks.subsets = {}\n";
    let conditions = "[generator.flow]\nconditions = [{ examples = 16 }]\n[hyper]\n";
    let text = RUN.replace("[zoo.train]\nruns = 4\nheld-out-runs = 2\n", tasks) + conditions;
    let config = parse(&text).unwrap();
    let field = FieldConfig { name: "examples".to_owned(), kind: FieldKindName::Examples(16) };
    assert_eq!(config.generator.conditions(), [field]);
    assert_eq!(parse(&config.to_toml()).unwrap(), config);
    let refused = |old: &str, new: &str, expected: &str| {
        let error = refusal(parse(&text.replace(old, new)));
        assert!(error.contains(expected), "{error}");
    };
    let few = "[evaluate.few-examples]\nflow-steps = 8\n";
    assert_eq!(parse(&(text.clone() + few)).unwrap().evaluate.few_examples.unwrap().flow_steps, 8);
    let unshown = parse(&(text.replace("{ examples = 16 }", "{ classes = \"task\" }") + few));
    assert!(refusal(unshown).contains("`evaluate.few-examples` needs `{ examples = 16 }`"));
    let none = refusal(parse(&(text.clone() + "[evaluate.few-examples]\nguide-scales = []\n")));
    assert!(none.contains("`evaluate.few-examples.guide-scales` must be positive numbers, at least one, got []"), "{none}");
    let inputs = parse(&text.replace("examples = 16", "inputs = 12")).unwrap();
    let field = FieldConfig { name: "inputs".to_owned(), kind: FieldKindName::Inputs(12) };
    assert_eq!(inputs.generator.conditions(), [field]);
    assert_eq!(parse(&inputs.to_toml()).unwrap(), inputs);
    refused("examples = 16", "inputs = 0", "must be 1 to 4096 inputs, got 0");
    refused(
        "{ examples = 16 }",
        "{ examples = 16 }, { inputs = 16 }",
        "must be `examples` or `inputs`, which are examples without their labels",
    );
    let few_inputs = parse(&(text.replace("examples = 16", "inputs = 16") + few));
    assert!(refusal(few_inputs).contains("`evaluate.few-examples` needs `{ examples = 16 }`"));
    refused("examples = 16", "examples = 0", "must be 1 to 4096 examples of each output, got 0");
    refused("examples = 16", "examples = \"few\"", "invalid type: string \"few\", expected usize");
    refused(
        "[hyper]\n",
        "[hyper]\n[sample]\nbest-of = { n = 2, by = \"validation\" }\n",
        "`sample.best-of` is for networks of one task",
    );
    let best = refusal(parse(&(RUN.to_owned() + "[evaluate]\nbest-of = 2\n[sample]\ncount = 4\n")));
    assert!(best.contains("`evaluate.best-of` is measured on held-out tasks"), "{best}");
    let few = refusal(parse(&(RUN.to_owned() + "[evaluate.few-examples]\n")));
    assert!(few.contains("`evaluate.few-examples` needs"), "{few}");
    let text = refusal(parse(&(RUN.to_owned() + "[text.bert]\npath = \"minilm\"\n")));
    assert!(text.contains("`text` must be left out: no condition is a text"), "{text}");
    let single = refusal(parse(&(RUN.to_owned() + "[generator.flow]\nconditions = [{ examples = 16 }]\n")));
    assert!(single.contains("show tasks, and the networks of this zoo have one"), "{single}");
    let single = refusal(parse(&(RUN.to_owned() + "[generator.flow]\nconditions = [{ inputs = 16 }]\n")));
    assert!(single.contains("has `inputs`, which show tasks"), "{single}");
}

#[test]
fn conditions_have_types_and_values_that_fit_them() {
    let fields = r#"generator.flow.conditions=["step", { classes = "task" }, { text = "phrase" }, { category = "optimizer" }, { vector = "place" }]"#;
    let asked = [
        "sample.condition.step=15",
        "sample.condition.task=[7, 0, 3]",
        "sample.condition.phrase=hey jarvis",
        "sample.condition.place=[0.5, -1]",
    ];
    let config = set(&[&[fields], &asked[..]].concat()).unwrap();
    assert_eq!(config.generator.conditions()[1], FieldConfig { name: "task".to_owned(), kind: FieldKindName::Classes });
    let specs: Vec<_> = config.generator.conditions().iter().map(|field| field.to_field(Some(10))).collect();
    let condition = condition_of(&config.sample.condition, &specs).unwrap();
    let written: Vec<String> = condition.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(written, ["phrase=hey jarvis", "place=0.5,-1", "step=15", "task=0+3+7"]);
    let written = config.to_toml();
    assert_eq!(parse(&written).unwrap(), config, "{written}");
    let few: Vec<_> = config.generator.conditions().iter().map(|field| field.to_field(Some(7))).collect();
    let error = condition_of(&config.sample.condition, &few).unwrap_err().to_string();
    assert!(error.contains("`task`") && error.contains("class 7 is not below 7"), "{error}");

    let check = |text: &str, expected: &str| {
        let error = refusal(set(&[fields, text]));
        assert_eq!(error, format!("`--set {text}`: {expected}"));
    };
    check(
        "sample.condition.task=[0.5]",
        "`sample.condition` cannot be: condition field `task` must be a set of classes such as 0+3+7 (`0.5` is not a class), got `0.5`",
    );
    check(
        "sample.condition.task=[]",
        "`sample.condition` cannot be: condition field `task` must be a set of classes such as 0+3+7 (`` is not a class), got ``",
    );
    check("sample.condition.step=many", "`sample.condition` cannot be: condition field `step` must be a finite number, got `many`");
    check("sample.condition.step=true", "invalid type: boolean `true`, expected a number, a text, or a list of classes or numbers");
    check(
        r#"generator.flow.conditions=["step", { vector = "step" }]"#,
        "`generator.flow.conditions` must be fields of different names, got `step` again or empty",
    );
    check(
        "generator.flow.conditions=[{ classes = \"task\", text = \"phrase\" }]",
        "a condition has one type and one name; write another table for another one",
    );
    let flow = "[generator.flow]\nconditions = [\"step\", { clases = \"task\" }]\n\n[zoo.train]";
    assert_eq!(
        refusal(parse(&RUN.replace("[zoo.train]", flow))),
        "run.toml:11:25: unknown key `clases`\nhint: did you mean `classes`? keys here: `scalar`, `category`, `classes`, `vector`, `text`, `examples`, `inputs`"
    );
}

#[test]
fn overrides_are_checked_by_the_same_types() {
    let config =
        set(&["zoo.train.runs=8", "generator.flow.width=64", "run.device=cpu", "sampler.rk4.steps=7", "codec.pca.rank.fixed=5"])
            .unwrap();
    assert_eq!((config.run.device, config.sampler.steps().steps), (DeviceConfig(weft_net::DeviceName::Cpu), 7));
    assert!(matches!(config.zoo, ZooConfig::Train(TrainZooConfig { runs: Some(8), .. })));
    assert!(matches!(config.codec, CodecConfig::Pca(PcaConfig { rank: RankConfig::Fixed(5), .. })));
    let config = set(&["zoo.train.recipe.duration.steps=9", "zoo.existing.path=my-zoo"]).unwrap();
    assert_eq!(config.zoo, ZooConfig::Existing(ExistingZooConfig { path: "my-zoo".into() }));

    let config = set(&["data.idx.path=mnist", "data.idx.name=mnist"]).unwrap();
    assert!(matches!(config.data.unwrap(), DataConfig::Idx(IdxConfig { validation: 5_000, .. })));
    let first = refusal(set(&["data.idx.path=mnist", "run.sede=1", "run.seed=2"]));
    assert!(first.starts_with("`--set data.idx.path=mnist`: missing key `name`"), "{first}");

    let check = |text: &str, expected: &str| assert_eq!(refusal(set(&[text])), format!("`--set {text}`: {expected}"));
    check("run.sede=1", "unknown key `sede`\nhint: did you mean `seed`? keys here: `name`, `seed`, `output`, `device`, `memory`");
    check("run.seed=one", "invalid type: string \"one\", expected u64");
    check("run.seed", "expected `dotted.key=value`");
    check("run..seed=1", "expected `dotted.key=value`");
    check("sample.count=0", "`sample.count` must be 1 or more, got 0");
    check("run.seed.x=1", "invalid type: map, expected u64");
    check(
        "generater.flow.width=1",
        "unknown key `generater`\nhint: did you mean `generator`? keys here: `run`, `data`, `architecture`, `zoo`, `canonicalize`, `codec`, `generator`, `text`, `sampler`, `sample`, `refiner`, `hyper`, `baselines`, `evaluate`, `export`",
    );
}

#[test]
fn a_resolved_config_parses_to_itself() {
    let texts = [
        RUN,
        QUICKSTART,
        include_str!("../../../../configs/h1-mnist-mlp.toml"),
        include_str!("../../../../configs/h2-mnist-mlp.toml"),
        include_str!("../../../../configs/h2-mnist-cnn.toml"),
        include_str!("../../../../configs/h4-mnist-zoo-cnn.toml"),
        include_str!("../../../../configs/h5-mnist-tasks.toml"),
        include_str!("../../../../configs/h5-mnist-tasks-inputs.toml"),
        include_str!("../../../../configs/recipes.toml"),
        include_str!("../../../../configs/h5-mnist-tasks-text.toml"),
        include_str!("../../../../configs/few-examples.toml"),
        include_str!("../../../../configs/widths/zoo.toml"),
        include_str!("../../../../configs/widths/unseen.toml"),
        include_str!("../../../../configs/textures.toml"),
        include_str!("../../../../configs/wake-words.toml"),
    ];
    for text in texts {
        let config = parse(text).unwrap();
        let written = config.to_toml();
        assert_eq!(parse(&written).unwrap(), config, "{written}");
        assert_eq!(parse(&written).unwrap().to_toml(), written);
    }
}

#[test]
fn shipped_recipes_are_those_of_the_head_to_heads() {
    let recipe = |text: &str, examples| {
        let ZooConfig::Train(train) = parse(text).unwrap().zoo else { panic!("a zoo to train") };
        (train.runs.unwrap(), train.held_out_runs.unwrap(), train.recipe.to_recipe(examples).unwrap())
    };
    let (runs, held_out, h1) = recipe(include_str!("../../../../configs/h1-mnist-mlp.toml"), 55_000);
    assert_eq!((runs, held_out, h1.num_steps(55_000), h1.learning_rate), (100, 50, 5 * 859, 1e-3));
    let (runs, held_out, h2) = recipe(include_str!("../../../../configs/h2-mnist-mlp.toml"), 55_000);
    assert_eq!((runs, held_out), (896, 128));
    assert_eq!(h2.kept_steps(55_000), [15, 24, 38, 60, 95, 150, 238, 377, 597, 946, 1500]);
    let (runs, held_out, cnn) = recipe(include_str!("../../../../configs/h2-mnist-cnn.toml"), 55_000);
    assert_eq!((runs, held_out, cnn), (256, 64, h2));
    let (runs, held_out, h4) = recipe(include_str!("../../../../configs/h4-mnist-zoo-cnn.toml"), 55_000);
    assert_eq!((runs, held_out, h4.kept_steps(55_000)), (448, 64, vec![3436]));
}
