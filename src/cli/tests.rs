use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, ErrorKind> {
    Cli::try_parse_from(["posthaste"].into_iter().chain(line.split_whitespace())).map_err(|error| error.kind())
}

#[test]
fn the_definition_of_the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn what_can_be_meant_is_taken_and_what_cannot_is_wrong_usage() {
    let check = |line: &str, expected: Result<(), ErrorKind>| assert_eq!(parse(line).map(drop), expected, "{line}");
    check("serve", Ok(()));
    check("sender --wait --metrics-listen 127.0.0.1:0", Ok(()));
    check("serve --wait", Err(ErrorKind::UnknownArgument));
    check("--json status --watch -vv", Ok(()));
    check("status --json --redis redis://h --config f.toml", Ok(()));
    check("publish a.b", Ok(()));
    check("publish a.b --data -1 --idempotency-key k --timestamp 5m", Ok(()));
    check("publish --file -", Ok(()));
    check("publish", Err(ErrorKind::MissingRequiredArgument));
    check("publish a.b --file f", Err(ErrorKind::ArgumentConflict));
    check("publish --file f --data 1", Err(ErrorKind::ArgumentConflict));
    check("publish a.b --timestamp soon", Err(ErrorKind::ValueValidation));
    check("webhook create --url https://e.com --events a,b.* --retry fast --header X:y --header Z:z", Ok(()));
    check("webhook create --url https://e.com", Err(ErrorKind::MissingRequiredArgument));
    check("webhook create --url https://e.com --events a --retry {", Err(ErrorKind::ValueValidation));
    check("webhook create --url https://e.com --events a --active --inactive", Err(ErrorKind::ArgumentConflict));
    check("webhook update wh_1 --rate-limit-per-minute none --header none --active", Ok(()));
    check("webhook update wh_1", Err(ErrorKind::MissingRequiredArgument));
    check("webhook update wh_1 --secret s", Err(ErrorKind::UnknownArgument));
    check("webhook update wh_1 --active --inactive", Err(ErrorKind::ArgumentConflict));
    check("webhook update wh_1 --timeout-seconds soon", Err(ErrorKind::ValueValidation));
    check("webhook resume wh_1 --skip", Ok(()));
    check("webhook pause wh_1 --skip", Err(ErrorKind::UnknownArgument));
    check("webhook logs wh_1 --status failed --since 1h --limit 1000", Ok(()));
    check("webhook test wh_1 --type a.b --data -1", Ok(()));
    check("webhook test", Err(ErrorKind::MissingRequiredArgument));
    check("webhook logs wh_1 --limit 0", Err(ErrorKind::ValueValidation));
    check("webhook stats wh_1 --window 7d", Ok(()));
    check("webhook stats wh_1 --window week", Err(ErrorKind::ValueValidation));
    check("deadletter list --reason gone", Ok(()));
    check("dead-letter list --reason bored", Err(ErrorKind::ValueValidation));
    check("deadletter show nothing", Err(ErrorKind::ValueValidation));
    check("deadletter replay --reason gone", Err(ErrorKind::MissingRequiredArgument));
    check("deadletter replay --reason gone --all --rate 5 --dry-run", Ok(()));
    check("deadletter replay --all --rate 0", Err(ErrorKind::ValueValidation));
    check("deadletter purge", Err(ErrorKind::MissingRequiredArgument));
    check("deadletter purge --all --rate 5", Err(ErrorKind::UnknownArgument));
    check("replay --webhook wh_1 --from 7d --until 1d --type a.* --rate 5", Ok(()));
    check("replay --webhook wh_1", Err(ErrorKind::MissingRequiredArgument));
    check("tenant create acme --name Acme", Ok(()));
    check("tenant create acme --max-stored-mb 5 --rate-limit-per-minute 60", Ok(()));
    check("tenant limit acme", Err(ErrorKind::MissingRequiredArgument));
    check("tenant limit acme --max-stored-mb none", Ok(()));
    check("tenant list", Ok(()));
    check("types list --tenant acme --json", Ok(()));
    check("types add order.paid --category order --description Paid --sample {} --schema @f --tenant acme", Ok(()));
    check("types add order.paid --category order", Err(ErrorKind::MissingRequiredArgument));
    check("types remove order.paid", Ok(()));
    check("check", Ok(()));
    check("demo", Ok(()));
    check("bench --scenario latency --seconds 5 --durability everysec --runs 1 --json", Ok(()));
    check("bench --scenario throughput --events 0", Err(ErrorKind::ValueValidation));
    check("--version", Err(ErrorKind::DisplayVersion));
    check("", Err(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand));
}

#[test]
fn every_command_explains_itself_with_an_example() {
    fn visit(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(command.has_subcommands() || help.contains("Example:"), "{}", command.get_name());
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&Cli::command());
}

#[test]
fn a_change_says_what_it_keeps_what_it_sets_and_what_it_takes_back() {
    let line = "webhook update wh_1 --name none --retry-count 5 --header X-A:1 --header X-B:2 --inactive";
    let Ok(Cli { command: Command::Webhook(webhook::WebhookCommand::Update(args)), .. }) = parse(line) else {
        panic!("{line} is an update");
    };
    let change: crate::manage::WebhookChange = args.change.into();
    assert_eq!(change.name, Some(None));
    assert_eq!(change.retry_count, Some(Some(5)));
    assert_eq!(change.timeout_seconds, None);
    assert_eq!(change.is_active, Some(false));
    let headers = change.headers.flatten().unwrap_or_default();
    assert_eq!(headers.into_iter().collect::<Vec<_>>(), [("X-A".into(), "1".into()), ("X-B".into(), "2".into())]);
}
