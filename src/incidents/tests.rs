//! Tests of the assignment of failures to outages.

use std::time::{Duration, SystemTime};

use super::*;
use crate::outcome::{Check, Fault, Indicator, Maintenance, PairVerdict, Reason, Side, StatusPage};

/// Interval of the probes.
const MINUTE: u64 = 60;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_334_400 + seconds)
}

fn run(probe: &'static str, model: Option<&'static str>, minute: u64, fault: Fault) -> Observed<'static> {
    let reason = match fault {
        Fault::None => Reason::Ok,
        Fault::Network => Reason::Connect,
        Fault::Caller => Reason::RateLimited,
        Fault::Prober => Reason::Internal,
        Fault::Gateway | Fault::Provider => Reason::Unavailable,
    };
    Observed {
        time: at(minute * MINUTE),
        probe,
        provider: "acme",
        check: Check::Chat,
        model,
        reason,
        fault,
        offline: false,
        detail: "",
        http_status: None,
        error_code: None,
        upstream: None,
        request_id: None,
        retry_after: None,
        comparison: None,
        status_page: None,
    }
}

/// Adds a run each minute: `.` succeeds, `g`, `p` and `n` fail by the fault of gateway, provider or
/// network, `c` by the caller's, `i` by the prober's, `o` while the prober is offline, and in a
/// blank there is no run.
fn play(ledger: &mut Ledger, begin: u64, probes: &[(&'static str, Option<&'static str>, &str)]) {
    let length = probes.iter().map(|(_, _, runs)| runs.len()).max().unwrap_or_default();
    for minute in 0..length {
        for (probe, model, runs) in probes {
            let fault = match runs.as_bytes().get(minute) {
                Some(b'.') => Fault::None,
                Some(b'g') => Fault::Gateway,
                Some(b'p') => Fault::Provider,
                Some(b'n' | b'o') => Fault::Network,
                Some(b'c') => Fault::Caller,
                Some(b'i') => Fault::Prober,
                _ => continue,
            };
            let offline = runs.as_bytes()[minute] == b'o';
            ledger.add(&Observed { offline, ..run(probe, *model, begin + minute as u64, fault) });
        }
    }
}

/// Returns each outage as its fault, start, end and downtime in minutes.
#[track_caller]
fn check(runs: &str, expected: &[(Fault, u64, Option<u64>, u64)]) {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, runs)]);
    let minutes = |time: SystemTime| time.duration_since(at(0)).unwrap().as_secs() / MINUTE;
    let incidents = ledger.finish(at((runs.len() as u64 - 1) * MINUTE));
    let outages: Vec<_> = incidents
        .outages
        .iter()
        .map(|outage| {
            (outage.fault, minutes(outage.start), outage.end.map(minutes), outage.down.as_secs() / MINUTE)
        })
        .collect();
    assert_eq!(outages, expected, "{runs}");
}

#[test]
fn outage_lasts_from_first_failure_to_recovery() {
    check(".....", &[]);
    check("..gg....", &[(Fault::Gateway, 2, Some(4), 2)]);
    check("..g.", &[(Fault::Gateway, 2, Some(3), 1)]);
    check("..gg", &[(Fault::Gateway, 2, None, 1)]);
    check("g...", &[(Fault::Gateway, 0, Some(1), 1)]);
}

#[test]
fn flapping_is_one_outage_until_three_successes() {
    check("..gg.g..g.....", &[(Fault::Gateway, 2, Some(9), 4)]);
    check("..g...g....", &[(Fault::Gateway, 2, Some(3), 1), (Fault::Gateway, 6, Some(7), 1)]);
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "..gg.g..g.....")]);
    let outage = &ledger.finish(at(3600)).outages[0];
    assert_eq!((outage.relapses, outage.failed_runs, outage.runs), (2, 4, 7));
}

#[test]
fn answer_of_the_service_ends_its_outage() {
    check("..ggccc..", &[(Fault::Gateway, 2, Some(4), 2)]);
    check("..cccc..", &[]);
    // Nothing was requested of the service.
    check("..ggiigg....", &[(Fault::Gateway, 2, Some(8), 6)]);
}

#[test]
fn failure_of_a_lower_layer_hides_an_outage() {
    let expected = [(Fault::Gateway, 2, Some(10), 5), (Fault::Network, 5, Some(8), 3)];
    check("..gggnnngg....", &expected);
    // A gateway that reports a failure of the provider is reachable and works.
    check("..ggppp....", &[(Fault::Gateway, 2, Some(4), 2), (Fault::Provider, 4, Some(7), 3)]);
}

#[test]
fn offline_prober_is_no_evidence() {
    check("..oooo....", &[]);
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "..oo.n...c")]);
    let months = ledger.finish(at(3600)).months;
    assert_eq!((months[0].runs, months[0].failed_runs, months[0].offline_runs), (8, 1, 2));
    assert_eq!((months[0].available_ratio, months[0].downtime_minutes.network), (Some(7.0 / 8.0), 1.0));
}

#[test]
fn first_failure_counts_for_the_interval_of_later_runs() {
    // The first run counts for an hour, until an offline run after it shows the interval.
    check("nooooooooooo", &[(Fault::Network, 0, Some(6), 6)]);
    check("gooo", &[(Fault::Gateway, 0, None, 3)]);
}

#[test]
fn silence_ends_what_can_be_claimed() {
    let silent = format!("......gg{}.....", " ".repeat(60));
    check(&silent, &[(Fault::Gateway, 6, Some(13), 7)]);
    let failing_again = format!("......gg{}gg....", " ".repeat(60));
    check(&failing_again, &[(Fault::Gateway, 6, Some(13), 7), (Fault::Gateway, 68, Some(70), 2)]);
    // A wait that the service requested is no silence.
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "......")]);
    ledger.add(&Observed { retry_after: Some(3600.0), ..run("p", None, 6, Fault::Gateway) });
    play(&mut ledger, 66, &[("p", None, "....")]);
    let outage = &ledger.finish(at(7200)).outages[0];
    assert_eq!((outage.end, outage.end_observed), (Some(at(66 * MINUTE)), true));
}

/// Returns start, end and downtime of each outage in minutes.
fn times(ledger: Ledger, now: u64) -> Vec<(u64, Option<u64>, u64)> {
    let minutes = |time: SystemTime| time.duration_since(at(0)).unwrap().as_secs() / MINUTE;
    let outages = ledger.finish(at(now * MINUTE)).outages;
    let times =
        |outage: &Outage| (minutes(outage.start), outage.end.map(minutes), outage.down.as_secs() / MINUTE);
    outages.iter().map(times).collect()
}

#[test]
fn silence_of_all_probes_ends_their_outage() {
    for gap in [7, 60] {
        let mut ledger = Ledger::default();
        let runs = format!("......gg{}gg....", " ".repeat(gap));
        play(&mut ledger, 0, &[("a", None, &runs), ("b", None, &runs)]);
        let again = 8 + gap as u64;
        assert_eq!(times(ledger, again + 5), [(6, Some(13), 7), (again, Some(again + 2), 2)], "{gap}");
    }
}

#[test]
fn removed_probe_joins_no_later_outage() {
    let (mut ledger, day) = (Ledger::default(), 24 * 60);
    let model = Some("m");
    play(&mut ledger, 0, &[("removed", model, "..gg"), ("other", model, "....")]);
    for hour in 1..20 * 24 {
        play(&mut ledger, hour * 60, &[("other", model, "...")]);
    }
    play(&mut ledger, 20 * day, &[("other", model, "...gg....")]);
    let start = 20 * day + 3;
    assert_eq!(times(ledger, 21 * day), [(2, Some(9), 7), (start, Some(start + 2), 2)]);
}

#[test]
fn read_of_the_status_page_shows_silence() {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "......gg")]);
    reads(&mut ledger, 13 + 7 * 60, &page(Indicator::Major));
    let outage = &ledger.finish(at(24 * 3600)).outages[0];
    assert_eq!(outage.status_page.unwrap().first_admission, None, "too late");
}

/// Returns the probes of each outage.
fn groups(probes: &[(&'static str, Option<&'static str>, &str)]) -> Vec<Vec<String>> {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, probes);
    let names = |outage: &Outage| outage.probes.iter().map(|affected| affected.probe.to_string()).collect();
    ledger.finish(at(7200)).outages.iter().map(names).collect()
}

#[test]
fn probes_that_fail_together_share_an_outage() {
    let [a, b] = [Some("m/a"), Some("m/b")];
    let together = groups(&[("a", a, "..ggg...."), ("b", b, "...ggg..."), ("h", None, "...g.....")]);
    assert_eq!(together, [["a", "b", "h"]], "within one interval of each other");
    let apart = groups(&[("a", a, "..gggggg..."), ("b", b, ".....gg....")]);
    assert_eq!(apart, [["a"], ["b"]], "another model, later");
    let of_model = groups(&[("a", a, "..gggggg..."), ("a2", a, ".....gg....")]);
    assert_eq!(of_model, [["a", "a2"]], "the same model, later");
    let faults = groups(&[("a", a, "..gg...."), ("b", a, "..nn....")]);
    assert_eq!(faults.len(), 2);
}

#[test]
fn downtime_counts_each_minute_once() {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("a", None, "..gggg......."), ("b", None, "...gggggg....")]);
    let incidents = ledger.finish(at(7200));
    assert_eq!(incidents.outages[0].down, Duration::from_secs(7 * MINUTE));
    assert_eq!(incidents.months[0].downtime_minutes, Downtime { gateway: 7.0, ..Downtime::default() });
    let [a, b] = &*incidents.outages[0].probes else { panic!("two probes") };
    assert_eq!((a.start, a.end, a.failed_runs), (at(2 * MINUTE), Some(at(6 * MINUTE)), 4));
    assert_eq!((b.start, b.end, b.failed_runs), (at(3 * MINUTE), Some(at(9 * MINUTE)), 6));
}

fn page(indicator: Indicator) -> StatusPage {
    StatusPage { indicator, open_incidents: None, components: Vec::new(), maintenance: None }
}

fn reads(ledger: &mut Ledger, minute: u64, page: &StatusPage) {
    let status = run("status", None, minute, Fault::None);
    ledger.add(&Observed { check: Check::Status, status_page: Some(page), ..status });
}

#[test]
fn first_admission_of_the_status_page_has_its_lag() {
    let mut ledger = Ledger::default();
    reads(&mut ledger, 0, &page(Indicator::None));
    play(&mut ledger, 0, &[("p", None, "..gg....")]);
    reads(&mut ledger, 8, &page(Indicator::None));
    reads(&mut ledger, 9, &page(Indicator::Major));
    reads(&mut ledger, 12, &page(Indicator::Major));
    // An outage that begins while the page reports the incident.
    play(&mut ledger, 20, &[("p", None, "..gg....")]);
    reads(&mut ledger, 30, &page(Indicator::None));
    play(&mut ledger, 40, &[("p", None, "..gg....")]);
    let lag = |outage: &Outage| outage.status_page.map(|page| page.lag_seconds);
    let lags: Vec<_> = ledger.finish(at(7200)).outages.iter().map(lag).collect();
    assert_eq!(lags, [Some(Some(7 * 60)), Some(Some(-13 * 60)), Some(None)]);
}

#[test]
fn late_admission_counts_while_a_probe_is_down() {
    let mut ledger = Ledger::default();
    let long = "g".repeat(8 * 60);
    play(&mut ledger, 0, &[("a", None, "..gg...."), ("b", None, &format!("..{long}"))]);
    reads(&mut ledger, 8 * 60 + 2, &page(Indicator::Major));
    play(&mut ledger, 8 * 60 + 3, &[("b", None, "....")]);
    let outage = &ledger.finish(at(24 * 3600)).outages[0];
    assert_eq!(outage.status_page.unwrap().lag_seconds, Some(8 * 3600));
}

#[test]
fn outage_without_status_check_has_no_admission() {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "..gg....")]);
    assert_eq!(ledger.finish(at(7200)).outages[0].status_page, None);
}

#[test]
fn overlapping_maintenance_is_listed() {
    let mut ledger = Ledger::default();
    let window = |start, end| {
        let maintenance = Maintenance { start: Some(at(start)), end: Some(at(end)), in_progress: false };
        StatusPage { maintenance: Some(maintenance), ..page(Indicator::None) }
    };
    reads(&mut ledger, 0, &window(150, 600));
    reads(&mut ledger, 1, &window(9_000, 9_600));
    play(&mut ledger, 0, &[("p", None, "..gg....")]);
    let outage = &ledger.finish(at(7200)).outages[0];
    assert_eq!(outage.maintenance, [Maintained { start: at(150), end: Some(at(600)) }]);
}

#[test]
fn verdicts_of_both_sides_belong_to_the_outage() {
    let mut ledger = Ledger::default();
    let side = |probe, minute, fault, side, verdict| Observed {
        comparison: Some(("cmp", side, verdict)),
        ..run(probe, None, minute, fault)
    };
    for minute in 0..4 {
        let fault = if minute == 2 { Fault::Gateway } else { Fault::None };
        let verdict = if minute == 2 { PairVerdict::GatewayFault } else { PairVerdict::Ok };
        ledger.add(&side("gateway", minute, fault, Side::Gateway, None));
        ledger.add(&side("direct", minute, Fault::None, Side::Direct, Some(verdict)));
    }
    let outage = &ledger.finish(at(7200)).outages[0];
    let verdicts: Vec<_> = outage.comparisons["cmp"].iter().collect();
    assert_eq!(verdicts, [(&PairVerdict::GatewayFault, &1)]);
}

#[test]
fn other_vantage_point_is_counted_during_the_outage() {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", None, "..ggg....gg...")]);
    let mut outages = ledger.finish(at(7200)).outages;
    let mut vantage = Vantage::new("fra", &outages, at(7200));
    for (minute, fault) in [(1, Fault::Gateway), (2, Fault::None), (4, Fault::Gateway), (5, Fault::Gateway)] {
        vantage.add(&run("p", None, minute, fault), &outages);
        vantage.add(&run("other", None, minute, fault), &outages);
    }
    vantage.finish(&mut outages);
    let counts: Vec<_> = outages.iter().map(|outage| &outage.vantage_points[0]).collect();
    let counts: Vec<_> = counts.iter().map(|seen| (&*seen.vantage, seen.runs, seen.failed_runs)).collect();
    assert_eq!(counts, [("fra", 2, 1), ("fra", 0, 0)]);
}

#[test]
fn lists_of_an_outage_are_bounded() {
    let mut ledger = Ledger::default();
    let codes: Vec<String> = (0..1_000).map(|number| format!("code_{number}")).collect();
    for (minute, code) in codes.iter().enumerate() {
        let failed = run("p", Some("m"), minute as u64, Fault::Gateway);
        ledger.add(&Observed { error_code: Some(code), request_id: Some(code), ..failed });
    }
    let outage = &ledger.finish(at(1_000 * MINUTE)).outages[0];
    let ids: Vec<_> = outage.requests().filter_map(|request| request.request_id.as_deref()).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!((ids[0], ids[9]), ("code_0", "code_999"));
    assert_eq!((outage.reasons.len(), outage.failed_runs), (16, 1_000));
}

#[test]
fn outages_beyond_the_limit_still_count_as_downtime() {
    let mut ledger = Ledger::default();
    for number in 0..MAX_OUTAGES as u64 + 5 {
        play(&mut ledger, number * 4, &[("p", None, "g...")]);
    }
    let incidents = ledger.finish(at((MAX_OUTAGES as u64 + 5) * 4 * MINUTE));
    assert_eq!((incidents.outages.len(), incidents.omitted_outages), (MAX_OUTAGES, 5));
    let minutes: f64 = incidents.months.iter().map(|month| month.downtime_minutes.gateway).sum();
    assert!((minutes - (MAX_OUTAGES as f64 + 5.0)).abs() < 1.0, "{minutes}");
}

#[test]
fn changed_probe_begins_anew() {
    let mut ledger = Ledger::default();
    play(&mut ledger, 0, &[("p", Some("old"), "..gg")]);
    play(&mut ledger, 4, &[("p", Some("new"), "....")]);
    let incidents = ledger.finish(at(8 * MINUTE));
    let outage = &incidents.outages[0];
    assert_eq!((outage.end, outage.end_observed), (Some(at(4 * MINUTE)), false));
    assert_eq!(outage.down, Duration::from_secs(2 * MINUTE), "not after the replacement");
}
