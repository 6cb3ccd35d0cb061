//! Runs long runs: many seeds, each in a process of its own, or one to look at.
#![allow(clippy::disallowed_methods, reason = "this is the real machine around the simulated ones")]

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use vltava_sim::long_run::{self, Plan, Report, Violation};
use vltava_sim::show_events;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Minutes of whole clusters' lives, from seeds.
#[derive(Parser)]
struct Arguments {
    /// So many seeds, from `--first` on.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// This seed only, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// Simulated minutes under faults.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Processes at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Show the plan, what happened, and what RUST_LOG asks for.
    #[arg(long)]
    trace: bool,
    /// Switch this rule off in the brokers: the run has to fail.
    #[arg(long)]
    without: Option<String>,
    /// Switch each rule off in turn, and tell how many seeds it took to notice. `--seeds` says how many are tried.
    #[arg(long)]
    mutations: bool,
    /// Runs that may be spent on finding the shortest plan that fails.
    #[arg(long, default_value_t = 0)]
    shorten: usize,
}

/// Rules that can be switched off, by their number in `replication-traps.md` where they have one.
const RULES: [(&str, &str); 21] = [
    ("flush", "a replica acknowledges what is on its disk"),
    ("trap-1", "a follower never cuts its log at its own high watermark"),
    ("trap-3", "a follower takes nothing from another leader epoch"),
    ("trap-4", "a leader compares the follower's last epoch with its own log before it sends"),
    ("trap-5", "a new leader tells no latest offset before it has reached the start of its epoch"),
    ("trap-6", "the high watermark waits for whoever is proposed for the ISR or about to join"),
    ("trap-6-strict", "the high watermark stands still below min.insync.replicas"),
    ("trap-7", "whom the leader proposed to remove counts until the controller has agreed"),
    ("trap-8", "a follower joins the ISR only with everything committed"),
    ("trap-13", "Raft's log is on disk before it is acknowledged"),
    ("trap-15", "a leader without a session with the controller serves nobody"),
    ("trap-16", "acks=all waits for all in-sync replicas"),
    ("trap-19", "a follower's log starts where its leader's does"),
    ("trap-20", "a new leader knows the producers' last batches"),
    ("trap-24", "a coordinator answers a commit when it is committed"),
    ("trap-26", "nobody takes a batch whose CRC is wrong"),
    ("trap-27", "a flush that failed was none"),
    ("trap-28", "recovery ends a log at the first batch whose CRC is wrong"),
    ("trap-31", "a log belongs to a topic's identity, not to its name"),
    ("trap-32", "nobody is elected who may lack what was committed"),
    ("high-watermark", "clients see what is committed only"),
];

/// A seed that takes longer in real time is stuck.
const REAL_TIME_LIMIT: Duration = Duration::from_secs(1800);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let duration = Duration::from_secs_f64(arguments.minutes * 60.0);
    if let Some(rule) = &arguments.without {
        assert!(RULES.iter().any(|(name, _)| name == rule), "no rule is called {rule}");
        vltava_types::mutation::switch_off(rule);
    }
    match arguments.seed {
        Some(seed) => run_one(seed, duration, &arguments),
        None if arguments.mutations => run_mutations(&arguments),
        None => run_many(&arguments),
    }
}

fn run_one(seed: u64, duration: Duration, arguments: &Arguments) -> ExitCode {
    let plan = Plan::draw(seed, duration);
    if arguments.trace {
        show_events();
        print!("{plan}");
    }
    let started = Instant::now();
    let report = run(&plan);
    let pace = report.simulated.as_secs_f64() / started.elapsed().as_secs_f64();
    if arguments.trace {
        print_history(&report);
        for (kind, operations) in &report.operations {
            println!("  {kind}: {operations:?}");
        }
    }
    if report.violations.is_empty() {
        println!("seed {seed}: {report}, {pace:.1} times real time");
        return ExitCode::SUCCESS;
    }
    println!("seed {seed} FAILED: {report}");
    print_violations(&report.violations);
    if arguments.shorten > 0 {
        let kind = report.violations[0].kind;
        let shortest = long_run::shorten(&plan, arguments.shorten, |plan| {
            run(plan).violations.iter().any(|violation| violation.kind == kind)
        });
        println!("the shortest plan found that fails so:\n{shortest}");
        let report = run(&shortest);
        print_violations(&report.violations);
        print_history(&report);
    } else if !arguments.trace {
        print!("{plan}");
        print_history(&report);
    }
    ExitCode::FAILURE
}

/// A panic within the cluster is a violation like others.
fn run(plan: &Plan) -> Report {
    catch_unwind(AssertUnwindSafe(|| long_run::run(plan))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Report::of_panic(text)
    })
}

fn print_violations(violations: &[Violation]) {
    for violation in violations.iter().take(10) {
        println!("  {violation}");
    }
}

fn print_history(report: &Report) {
    println!("history:");
    for (at, what) in &report.notes {
        println!("  {at:>9.3?} {what}");
    }
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let count = arguments.seeds.unwrap_or(200);
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first + count;
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Err(told) = run_in_a_process(seed, arguments, None) {
                        failed.lock().expect("no holder panics").push(seed);
                        print!("{told}");
                        let _ = std::io::stdout().flush();
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().expect("no holder panics");
    failed.sort_unstable();
    let (hours, minutes) = (count as f64 * arguments.minutes / 60.0, started.elapsed().as_secs_f64() / 60.0);
    println!(
        "{count} seeds, {hours:.1} simulated hours under faults in {minutes:.1} minutes ({:.2} hours a minute), {} failed: {failed:?}",
        hours / minutes,
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// For each rule the first seeds without it, until one fails.
fn run_mutations(arguments: &Arguments) -> ExitCode {
    let most = arguments.seeds.unwrap_or(50);
    let next = AtomicU64::new(0);
    let missed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while let Some((rule, says)) = RULES.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let mut seeds = arguments.first..arguments.first + most;
                    let caught = seeds.find_map(|seed| {
                        let told = run_in_a_process(seed, arguments, Some(rule)).err()?;
                        // One that fails with the rule in force as well says nothing of the rule.
                        run_in_a_process(seed, arguments, None).ok().map(|()| (seed, told))
                    });
                    match caught {
                        Some((seed, told)) => {
                            let kind = told.lines().find(|line| line.starts_with("  ")).unwrap_or("it ended").trim();
                            let count = seed - arguments.first + 1;
                            println!("| {rule} | {says} | {count} | {} |", kind.chars().take(120).collect::<String>());
                        }
                        None => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            println!("| {rule} | {says} | not within {most} | |");
                        }
                    }
                }
            });
        }
    });
    if missed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the run told, if it failed.
fn run_in_a_process(seed: u64, arguments: &Arguments, without: Option<&str>) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("timeout");
    command.arg(REAL_TIME_LIMIT.as_secs().to_string()).arg(program);
    command.args(["--seed", &seed.to_string(), "--minutes", &arguments.minutes.to_string()]);
    command.args(["--shorten", &arguments.shorten.to_string()]);
    if let Some(rule) = without {
        command.args(["--without", rule]);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("seed {seed}: {}\n{told}{errors}", output.status))
}
