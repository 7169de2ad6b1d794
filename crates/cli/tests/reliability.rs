//! The short form of the campaign in `bench/campaign`: some of its kills and faults.
#![cfg(target_os = "linux")]

use contaccum_campaign::{Deed, Lab, SCENARIOS, Trial};

/// Trials of each scenario with each deed; all of them take minutes.
const POINTS: usize = 2;

fn failures(deeds: &[Deed]) -> Vec<Trial> {
    let program = assert_cmd::cargo::cargo_bin!("contaccum");
    let lab = Lab::new(program).unwrap();
    let tally = |scenario| lab.run(scenario, deeds, POINTS, 1).unwrap().failures;
    SCENARIOS.iter().flat_map(tally).collect()
}

fn assert_none(failures: &[Trial]) {
    let told: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_command_that_was_killed_ends_well_when_it_is_run_again_with_the_same_bits() {
    assert_none(&failures(&[Deed::Kill]));
}

#[test]
fn a_call_that_fails_and_a_full_disk_are_told_in_one_line_and_leave_what_was_there() {
    assert_none(&failures(&[Deed::Fail, Deed::Full]));
}
