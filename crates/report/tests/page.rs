//! Runs of every kind, and the page on them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use contaccum_report::{ReportError, write_page};

/// One line of records with what every method writes.
fn record(update: usize, loss: &str) -> String {
    format!(
        "{{\"update\":{update},\"loss\":{loss},\"current_rows_loss\":{loss},\"grad_norm_query\":1.5,\
         \"grad_norm_passage\":3.0,\"grad_norm_ratio\":2.0,\"learning_rate\":2e-5,\"negatives_per_query\":7.0,\
         \"bank_samples\":0,\"bank_mass\":0.0,\"tokens_per_second\":900.0,\"seconds\":0.5,\
         \"resident_bytes\":100000000,\"peak_resident_bytes\":200000000}}\n"
    )
}

/// A run's folder with these records and settings.
fn run(parent: &Path, name: &str, records: &str, settings: &str) -> PathBuf {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("metrics.jsonl"), records).unwrap();
    fs::write(folder.join("config.toml"), settings).unwrap();
    folder
}

fn page(runs: &[PathBuf]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("report.html");
    write_page(runs, &output).unwrap();
    fs::read_to_string(output).unwrap()
}

/// A finished run with banks, development metrics and an evaluation, of `updates` updates.
fn whole_run(parent: &Path, name: &str, updates: usize) -> PathBuf {
    let mut records = String::new();
    for update in 1..=updates {
        let noise = (update * 7919 % 1000) as f64 / 1000.0;
        let loss = 3.0 / (1.0 + update as f64 / 100.0) + noise;
        let ages: Vec<f64> = (1..=8).map(|age| f64::from(age) / 100.0 + noise / 1000.0).collect();
        let _ = write!(
            records,
            "{{\"update\":{update},\"loss\":{loss},\"current_rows_loss\":{loss},\"grad_norm_query\":{},\
             \"grad_norm_passage\":{},\"grad_norm_ratio\":{},\"learning_rate\":{},\"negatives_per_query\":{},\
             \"bank_samples\":512,\"bank_mass\":{},\"bank_mass_by_age\":{ages:?},\"bank_drift\":0.001,\
             \"bank_path\":0.1,\"bank_evicted\":0,\"tokens_per_second\":{},\
             \"seconds\":{},\"planned_bytes\":150000000,\"peak_resident_bytes\":200000000",
            1.0 + noise,
            2.0 + noise,
            2.0 - noise,
            2e-5 * (1.0 - update as f64 / updates as f64),
            update.min(519),
            0.3 + noise / 10.0,
            1000.0 + 50.0 * noise,
            0.5 + noise / 10.0,
        );
        records += if update % (updates / 5) == 0 { ",\"dev\":{\"nDCG@10\":0.5}}\n" } else { "}\n" };
    }
    let folder = run(parent, name, &records, "method = \"contaccum\"\nseed = 1\n");
    fs::create_dir(folder.join("model")).unwrap();
    fs::create_dir(folder.join("evaluations")).unwrap();
    let evaluation =
        r#"{"data":"data/squad","split":"test","queries":["a","b","c"],"measures":{"RR@10":[0.5,0.5,0.5]}}"#;
    fs::write(folder.join("evaluations/squad.json"), evaluation).unwrap();
    folder
}

const CHARTS: [&str; 16] = [
    "Loss over current rows",
    "Loss over all rows",
    "Gradient norm, query encoder",
    "Gradient norm, passage encoder",
    "Gradient norm ratio, passage / query",
    "Similarity mass on the banks",
    "Similarity mass by age",
    "Negatives per query",
    "Drift of the encoder",
    "Path of the oldest banked sample",
    "Samples in the banks",
    "Learning rate",
    "Tokens per second",
    "Time per update",
    "Memory (MiB)",
    "Development nDCG@10",
];

#[test]
fn a_whole_run_has_every_chart_and_its_final_metrics_with_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(&[whole_run(folder.path(), "squad-512", 40)]);
    for title in CHARTS {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert_eq!(page.matches("<figure").count(), CHARTS.len());
    assert!(page.contains("squad-512") && page.contains("finished"));
    assert!(page.contains("0.5000") && page.contains("[0.5000, 0.5000]"));
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(&[whole_run(folder.path(), "run", 40)]);
    let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for foreign in ["http", "//", "<script", "<link", "<img", "@import", "url("] {
        assert!(!rest.contains(foreign), "{foreign}");
    }
}

#[test]
fn the_same_files_give_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [whole_run(folder.path(), "a", 40), whole_run(folder.path(), "b", 40)];
    assert_eq!(page(&runs), page(&runs));
}

#[test]
fn what_comes_from_files_is_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "<script>alert(1)</script>";
    let records = record(1, "1.0").replace("}\n", &format!(",\"dev\":{{\"{evil}\":1.0}}}}\n"));
    let settings = format!("model = '{evil}'\nmethod = '{evil}'\n");
    let named = run(folder.path(), "<b>&\"run\"", &records, &settings);
    fs::create_dir(named.join("evaluations")).unwrap();
    let evaluation = format!(
        "{{\"data\":\"d\",\"split\":\"{evil}\",\"queries\":[\"a\"],\"measures\":{{\"{evil}\":[1.0]}}}}"
    );
    fs::write(named.join("evaluations/<i>.json"), evaluation).unwrap();
    let page = page(&[named]);
    assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("<i>"));
    assert!(page.contains("&lt;b&gt;&amp;&quot;run&quot;") && page.contains("&lt;script&gt;"));
}

#[test]
fn only_settings_that_differ_are_set_against_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        |bank: usize| format!("seed = 1\nmemory_bank_size = {bank}\noutput_dir = \"runs/{bank}\"\n");
    let page = page(
        &[128, 512].map(|bank| run(folder.path(), &bank.to_string(), &record(1, "1.0"), &settings(bank))),
    );
    let (_, from_differing) = page.split_once("Settings that differ").unwrap();
    let (differing, all) = from_differing.split_once("All settings").unwrap();
    assert!(differing.contains("memory_bank_size") && !differing.contains("seed"));
    assert!(all.contains("memory_bank_size") && all.contains("seed") && !all.contains("output_dir"));
}

#[test]
fn a_stopped_run_is_drawn_as_far_as_it_came_and_its_torn_line_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let records = record(1, "2.0") + &record(2, "1.0") + "{\"update\":3,\"lo";
    let page = page(&[run(folder.path(), "killed", &records, "method = \"grad-accum\"")]);
    assert!(page.contains("running or stopped") && page.contains("unreadable: line 3"));
    assert!(page.contains("<h3>Loss over all rows</h3>") && page.contains("no intervals to give"));
}

#[test]
fn numbers_that_were_not_finite_leave_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let records: String =
        (1..=9).map(|update| record(update, if update == 5 { "null" } else { "1.25" })).collect();
    let page = page(&[run(folder.path(), "gap", &records, "")]);
    let (_, chart) = page.split_once("<h3>Loss over all rows</h3>").unwrap();
    let chart = chart.split("</figure>").next().unwrap();
    // Two stretches of the running mean, in the code of the first run's line.
    assert_eq!(chart.matches("stroke=\"#010000\"").count(), 2, "{chart}");
    assert!(!page.contains("NaN") && !page.contains("inf\""));
}

#[test]
fn charts_of_what_no_run_recorded_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(&[run(folder.path(), "plain", &record(1, "1.0"), "method = \"grad-accum\"")]);
    let (_, missing) = page.split_once("Not recorded by any of these runs:").unwrap();
    assert!(missing.contains("Similarity mass on the banks; Similarity mass by age"));
    assert!(!page.contains("<h3>Similarity mass"));
}

#[test]
fn a_run_without_an_update_or_settings_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    fs::create_dir(&started).unwrap();
    fs::write(started.join("metrics.jsonl"), "").unwrap();
    let page = page(&[started, run(folder.path(), "other", &record(1, "1.0"), "seed = 1")]);
    assert!(page.contains("no update yet") && page.contains("has no config.toml"));
}

#[test]
fn runs_of_one_name_are_told_apart_by_their_parents_and_one_given_twice_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let runs = ["a", "b"].map(|parent| run(&folder.path().join(parent), "seed-1", &record(1, "1.0"), ""));
    let twice = [runs[0].clone(), runs[1].clone(), runs[0].join("../seed-1")];
    let page = page(&twice);
    assert!(page.contains("a/seed-1") && page.contains("b/seed-1") && page.contains("<h1>2 runs</h1>"));
}

#[test]
fn eight_long_runs_of_different_lengths_are_less_than_two_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let runs: Vec<PathBuf> =
        (0..8).map(|index| whole_run(folder.path(), &index.to_string(), 10_000 - 500 * index)).collect();
    let size = page(&runs).len();
    assert!(size < 2_000_000, "{size} bytes");
}

#[test]
fn a_folder_without_records_is_no_run_and_no_page_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("report.html");
    let error = write_page(&[folder.path().to_owned()], &output).unwrap_err();
    assert!(matches!(error, ReportError::NoRun { .. }) && !error.to_string().contains('\n'), "{error}");
    assert!(matches!(write_page(&[], &output), Err(ReportError::NoRuns)));
    assert!(!output.exists());
}

#[test]
fn a_page_stays_small_however_many_updates_and_runs_it_draws() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = String::new();
    for update in 1..=60_000 {
        let loss = format!("{}", (update * 7919 % 1000) as f64 / 100.0);
        let line = record(update, &loss);
        let _ = writeln!(
            records,
            "{},\"dev\":{{\"nDCG@10\":{loss},\"RR@10\":{loss}}}}}",
            &line[..line.len() - 2]
        );
        if update % 3 == 0 {
            records += "no record\n";
        }
    }
    let long = run(folder.path(), "long", &records, "seed = 1\n");
    let one = page(&[long]);
    assert!(one.len() < 1_000_000, "{} bytes", one.len());
    assert!(one.contains("Development nDCG@10") && one.contains("and 19990 others"));
    let short: String = (1..=1000).map(|update| record(update, "1.5")).collect();
    let many: Vec<_> =
        (0..100).map(|seed| run(folder.path(), &format!("run-{seed}"), &short, "seed = 1\n")).collect();
    let all = page(&many);
    assert!(all.len() < 5_000_000, "{} bytes", all.len());
}

#[test]
fn values_at_the_ends_of_their_range_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let pairs =
        [("1.0", "1.0000000000000002"), ("1e308", "1.7e308"), ("5e-324", "1e-323"), ("-1.7e308", "1.7e308")];
    for (index, (first, second)) in pairs.into_iter().enumerate() {
        let line = |update: usize, value: &str| {
            format!(
                "{{\"update\":{update},\"loss\":{value},\"grad_norm_query\":{value},\"seconds\":{value},\
                 \"dev\":{{\"nDCG@10\":{value}}}}}\n"
            )
        };
        let records = line(1, first) + &line(2, second);
        let page = page(&[run(folder.path(), &index.to_string(), &records, "")]);
        assert!(
            page.contains("Loss over all rows") && page.len() < 100_000,
            "{first} {second}: {} bytes",
            page.len()
        );
    }
}

#[test]
fn metrics_without_number_are_drawn_up_to_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let metrics: Vec<String> = (0..5000).map(|metric| format!("\"m{metric}\":0.5")).collect();
    let records = format!("{{\"update\":1,\"dev\":{{{}}}}}\n", metrics.join(","));
    let page = page(&[run(folder.path(), "many", &records, "")]);
    assert!(page.matches("<svg").count() < 50 && page.len() < 500_000, "{} bytes", page.len());
}
