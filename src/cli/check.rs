//! `check`: what the configuration and Redis lack.

use anyhow::bail;
use serde::Serialize;

use super::{context::Context, values::count};
use crate::{
    config::{Config, Durability},
    send::post::Post,
    streams::ServerReport,
};

/// Something that is lacking, with its remedy.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// Nothing starts with it.
    is_fault: bool,
    text: String,
}

pub async fn run(context: &Context) -> anyhow::Result<()> {
    let streams = context.streams().await?;
    let report = streams.server_report().await?;
    let findings: Vec<Finding> =
        of_server(&report, context.config.redis.durability).chain(of_configuration(&context.config)).collect();
    print(context, &report, &findings)?;
    match findings.iter().filter(|finding| finding.is_fault).count() as u64 {
        0 => Ok(()),
        faults => bail!("{} must be mended first", count(faults, "fault")),
    }
}

/// What the server lacks. What can lose accepted events is a fault where the user asked for strict durability, and no
/// news where for relaxed.
fn of_server(report: &ServerReport, durability: Durability) -> impl Iterator<Item = Finding> {
    let finding = |is_fault: bool| move |text: &String| Finding { is_fault, text: text.clone() };
    report
        .faults
        .iter()
        .map(finding(true))
        .chain(report.losses_for(durability).iter().map(finding(durability == Durability::Strict)))
        .chain(report.advice.iter().map(finding(false)))
}

fn of_configuration(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(refused) = config.check_api() {
        findings.push(Finding { is_fault: true, text: refused.to_string() });
    }
    if let Err(refused) = Post::of(config, true) {
        findings.push(Finding { is_fault: true, text: refused.to_string() });
    }
    if let Err(refused) = config.check_secrets() {
        findings.push(Finding { is_fault: true, text: refused.to_string() });
    } else if config.secrets.keys.is_empty() {
        let text = config.refuse(
            "secrets.key",
            "is not set, so whoever can read this Redis can read webhooks' secrets: set it to what \
             `openssl rand -base64 32` prints",
        );
        findings.push(Finding { is_fault: false, text: text.to_string() });
    }
    findings
}

fn print(context: &Context, report: &ServerReport, findings: &[Finding]) -> anyhow::Result<()> {
    let out = &context.out;
    if out.is_json {
        let redis = serde_json::json!({
            "name": report.name, "version": report.version, "cluster_primaries": report.primaries
        });
        return out.json(&serde_json::json!({ "redis": redis, "findings": findings }));
    }
    let cluster = report.primaries.map(|number| format!(" (a cluster of {number})")).unwrap_or_default();
    out.line(format_args!("configuration is fine, {} {}{cluster} answers", report.name, report.version))?;
    for Finding { is_fault, text } in findings {
        let kind = if *is_fault { out.paint.red("fault:") } else { out.paint.yellow("better:") };
        out.line(format_args!("{kind} {text}"))?;
    }
    if findings.is_empty() {
        out.line("nothing is lacking")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::AppendOnlyFile;

    #[test]
    fn durability_says_whether_a_possible_loss_is_a_fault() {
        let report = ServerReport {
            name: "redis".into(),
            version: "7.0.15".into(),
            primaries: None,
            used_memory_bytes: 1,
            max_memory_bytes: 0,
            aof: AppendOnlyFile { is_enabled: true, is_written: true, is_rewritten: true, bytes: 1 },
            faults: vec!["fault".into()],
            losses: vec!["loss".into()],
            advice: vec!["advice".into()],
        };
        let check = |durability, expected: &[(&str, bool)]| {
            let found: Vec<Finding> = of_server(&report, durability).collect();
            assert_eq!(found.iter().map(|f| (f.text.as_str(), f.is_fault)).collect::<Vec<_>>(), expected);
        };
        check(Durability::Auto, &[("fault", true), ("loss", false), ("advice", false)]);
        check(Durability::Strict, &[("fault", true), ("loss", true), ("advice", false)]);
        check(Durability::Relaxed, &[("fault", true), ("advice", false)]);
    }
}
