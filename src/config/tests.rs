use std::{io::Write, path::Path};

use super::*;
use crate::domain::retry::PRESETS;

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(on_disk.path()), env, None)
}

fn schedule(delays_ms: &[u64]) -> Retry {
    Retry::schedule(delays_ms.to_vec(), 0.0)
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.redis.url, RedisUrl::Embedded);
    assert_eq!(config.redis.shards, 16);
    assert_eq!(config.shutdown_grace, Duration::from_secs(15));
    assert_eq!(config.delivery.max_payload_bytes, 262_144);
    assert_eq!(config.delivery.max_age, Duration::from_secs(168 * 3_600));
    assert_eq!(config.delivery.rate_limit_per_minute, None);
    assert_eq!(config.targets.allow_cidrs, None);
    assert_eq!(config.retention.events_max_bytes, None);
    assert!(!config.api.strict_types);
    assert!(config.api.auto_create_tenants && config.targets.require_https && config.secrets.keys.is_empty());
    assert_eq!(config.default_retry(), &config.retry_presets["fast"]);
    let presets = PRESETS.map(|name| (name.to_owned(), Retry::preset(name).unwrap()));
    assert_eq!(config.retry_presets, presets.into());
}

#[test]
fn every_setting_of_the_defaults_has_a_comment_above_it() {
    let mut above = "";
    for line in layers::DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with("# \"") {
            assert!(above.starts_with("# "), "{line}");
        }
        above = line;
    }
}

#[test]
fn it_is_known_whether_anybody_said_where_metrics_are_served() {
    let check = |file: &str, env: &[(&str, &str)], expected: bool| {
        assert_eq!(load(file, env).unwrap().metrics_listen_is_set(), expected, "{file} {env:?}");
    };
    check("", &[], false);
    check("[metrics]\n", &[], false);
    check("[metrics]\nlisten = \"127.0.0.1:9464\"", &[], true);
    check("", &[("POSTHASTE_METRICS__LISTEN", "127.0.0.1:1")], true);
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[redis]\nshards = 4\nprefix = \"mine\"\n[api]\nlisten = \"127.0.0.1:1\"";
    let config =
        load(file, &[("POSTHASTE_REDIS__SHARDS", "8"), ("PATH", "/bin"), ("POSTHASTE_SERVICE_HOST", "x")]).unwrap();
    assert_eq!((config.redis.shards, config.redis.prefix.as_str()), (8, "mine"));
    assert_eq!(config.api.listen.port(), 1);
    let config = Config::load(None, [("POSTHASTE_REDIS__URL".to_owned(), "redis://a".to_owned())], Some("redis://b"));
    assert!(matches!(config.unwrap().redis.url, RedisUrl::Own(url) if url.expose() == "redis://b"));
}

#[test]
fn a_variable_is_read_as_what_its_setting_holds() {
    let networks = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>());
    let config = |name: &str, value: &str| load("", &[(name, value)]).unwrap();
    assert_eq!(config("POSTHASTE_TARGETS__ALLOW_CIDRS", "").targets.allow_cidrs, networks(&[]));
    let two = networks(&["10.0.0.0/8", "::1/128"]);
    assert_eq!(config("POSTHASTE_TARGETS__ALLOW_CIDRS", "10.0.0.0/8, ::1").targets.allow_cidrs, two);
    assert_eq!(config("POSTHASTE_TARGETS__PORTS", "443,8443").targets.ports, [443, 8443]);
    assert_eq!(config("POSTHASTE_TARGETS__ALLOW_HOSTS", "A.example").targets.allow_hosts, ["a.example"]);
    assert_eq!(config("POSTHASTE_DELIVERY__RATE_LIMIT_PER_MINUTE", "60").delivery.rate_limit_per_minute, Some(60));
    assert!(!config("POSTHASTE_TARGETS__REQUIRE_HTTPS", "false").targets.require_https);
    assert_eq!(config("POSTHASTE_DATA_DIR", "/d").data_dir, Path::new("/d"));
    assert_eq!(config("POSTHASTE_RETRY__FAST__RETRY_COUNT", "9").default_retry().count, 9);
    assert_eq!(config("POSTHASTE_RETENTION__EVENTS_MAX_MB", "2").retention.events_max_bytes, Some(2_000_000));
}

#[test]
fn a_preset_of_the_users_own_can_be_named_and_a_known_one_replaced_whole() {
    let file = "[delivery]\nretry = \"mine\"\n[retry.mine]\nkind = \"schedule\"\ndelays_ms = [5]\n\
                [retry.fast]\nkind = \"schedule\"\ndelays_ms = [1, 2]\n[retry.slow]\nkind = \"exponential\"\nbase_ms = 9";
    let config = load(file, &[]).unwrap();
    assert_eq!(*config.default_retry(), schedule(&[5]));
    assert_eq!(config.retry_presets["fast"], schedule(&[1, 2]));
    assert_eq!(config.retry_presets["slow"].count, 3);
}

#[test]
fn what_cannot_work_is_refused_in_a_sentence_that_names_the_setting() {
    for (setting, file, part) in [
        ("redis.shards", "[redis]\nshards = 0", "must be from 1 to 1024, not 0"),
        ("redis.shards", "[redis]\nshards = \"many\"", "must be a whole number"),
        ("redis.url", "[redis]\nurl = \"http://:secret@host\"", "must be `embedded` or a URL"),
        ("redis.prefix", "[redis]\nprefix = \"{a}\"", "letters, digits"),
        ("redis.durability", "[redis]\ndurability = \"none\"", "`auto`, `strict`"),
        ("redis", "redis = 5", "is a section"),
        ("api.listen", "[api]\nlisten = \"localhost\"", "an IP address and a port"),
        ("api.public_url", "[api]\npublic_url = \"hooks\"", "https://"),
        ("api.admin_key", "[api]\nadmin_key = \"two secret\"", "without spaces"),
        ("delivery.timeout_seconds", "[delivery]\ntimeout_seconds = 301", "from 1 to 300"),
        ("delivery.rate_limit_per_minute", "[delivery]\nrate_limit_per_minute = 0", "from 1 to 60000"),
        ("delivery.max_payload_bytes", "[delivery]\nmax_payload_bytes = 1048577", "1048576"),
        ("delivery.retry", "[delivery]\nretry = \"often\"", "fast, standard, steady"),
        ("delivery.timeout_secs", "[delivery]\ntimeout_secs = 3", "did you mean `delivery.timeout_seconds`?"),
        ("sources", "[[sources]]\nkind = \"stream\"", "is not a setting"),
        ("colour", "colour = 1", "is not a setting"),
        ("targets.allow_cidrs", "[targets]\nallow_cidrs = [\"10.0.0.0/99\"]", "10.1.0.0/16"),
        ("targets.allow_cidrs", "[targets]\nallow_cidrs = \"\"", "a list of texts"),
        ("targets.ports", "[targets]\nports = [0]", "1 to 65535"),
        ("targets.proxy", "[targets]\nproxy = \"https://:secret@proxy:1\"", "must be a URL such as http://"),
        ("targets.proxy", "[targets]\nproxy = \"http://:secret@proxy\"", "must be a URL such as http://"),
        ("targets.proxy", "[targets]\nproxy = \"http://proxy:1/secret\"", "must be a URL such as http://"),
        ("targets.proxy", "[targets]\nproxy = \"proxy:1\"", "must be a URL such as http://"),
        ("targets.allow_hosts", "[targets]\nallow_hosts = [\"https://a\"]", "host names"),
        ("retention.events_days", "[retention]\nevents_days = 0", "from 1 to 3650"),
        ("secrets.key", "[secrets]\nkey = \"secret\"", "base64 of 32 bytes"),
        ("log.level", "[log]\nlevel = \"inof\"", "error, warn"),
        ("data_dir", "data_dir = \"\"", "is empty"),
        ("retry.mine", "[retry.mine]\nkind = \"schedule\"\ndelays_ms = []", "delays_ms: 1 to 100"),
        ("retry.mine", "[retry.mine]\nkind = \"exponential\"", "base_ms"),
        ("retry.fast", "[retry.fast]\nkind = \"exponential\"\nbase_ms = 1\njitter = 2", "jitter: 0 to 1"),
        ("retry.fast.delay", "[retry.fast]\nkind = \"exponential\"\ndelay = 1", "is not a setting"),
    ] {
        let sentence = load(file, &[]).unwrap_err().to_string();
        assert!(sentence.starts_with(&format!("`{setting}` (/")) && sentence.contains(part), "{file}: {sentence}");
        assert!(!sentence.contains("secret") || setting == "secrets.key", "{file}: {sentence}");
    }
}

#[test]
fn a_variable_that_cannot_work_is_refused_by_its_name() {
    for (name, value, part) in [
        (
            "POSTHASTE_REDIS__SHARDS",
            "0",
            "`redis.shards` (environment variable POSTHASTE_REDIS__SHARDS): must be from 1",
        ),
        ("POSTHASTE_REDIS__SHARDS", "", "must be a whole number"),
        ("POSTHASTE_REDIS_URL", "x", "did you mean POSTHASTE_REDIS__URL?"),
        ("POSTHASTE_DATADIR", "x", "did you mean POSTHASTE_DATA_DIR?"),
        ("POSTHASTE_TOKENS__FILE", "x", "`tokens.file` (environment variable POSTHASTE_TOKENS__FILE) is not a setting"),
        (
            "POSTHASTE_RETRY__FAST__RETRY_COUNT",
            "101",
            "`retry.fast` (environment variable POSTHASTE_RETRY__FAST__RETRY_COUNT)",
        ),
    ] {
        let sentence = load("", &[(name, value)]).unwrap_err().to_string();
        assert!(sentence.contains(part), "{name}: {sentence}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = Config::load(Some(Path::new("/no/such.toml")), [], None).unwrap_err();
    assert!(missing.to_string().starts_with("`/no/such.toml` cannot be read"), "{missing}");
    let broken = load("a = 1\nb =", &[]).unwrap_err();
    assert!(broken.to_string().contains("is not TOML: line 2"), "{broken}");
}

#[test]
fn an_api_that_others_can_reach_needs_an_admin_key() {
    let check = |listen: &str, key: &str| {
        load("", &[("POSTHASTE_API__LISTEN", listen), ("POSTHASTE_API__ADMIN_KEY", key)]).unwrap().check_api()
    };
    assert_eq!(check("127.0.0.1:0", ""), Ok(()));
    assert_eq!(check("0.0.0.0:80", "k"), Ok(()));
    assert!(check("0.0.0.0:80", "").unwrap_err().to_string().starts_with("`api.admin_key`"));
}

#[test]
fn loopback_may_be_posted_to_only_from_a_local_serve_unless_networks_are_set() {
    let set = ("POSTHASTE_TARGETS__ALLOW_CIDRS", "10.0.0.0/8");
    let none = ("POSTHASTE_TARGETS__ALLOW_CIDRS", "");
    let own_redis = ("POSTHASTE_REDIS__URL", "redis://host");
    let reachable = ("POSTHASTE_API__LISTEN", "0.0.0.0:80");
    let public = ("POSTHASTE_API__PUBLIC_URL", "https://hooks.example.com");
    for (env, is_serve, expected) in [
        (&[][..], true, "127.0.0.0/8 ::1/128"),
        (&[], false, ""),
        (&[own_redis], true, ""),
        (&[reachable], true, ""),
        (&[public], true, ""),
        (&[none], true, ""),
        (&[set], true, "10.0.0.0/8"),
        (&[set, public, own_redis], false, "10.0.0.0/8"),
    ] {
        let networks = load("", env).unwrap().allowed_networks(is_serve);
        let networks = networks.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(networks, expected, "{env:?} {is_serve}");
    }
}

#[test]
fn a_proxy_is_read_with_its_credentials() {
    let check = |text: &str, host: &str, port: u16, credentials: Option<&str>| {
        let proxy = load("", &[("POSTHASTE_TARGETS__PROXY", text)]).unwrap().targets.proxy.unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
        assert_eq!(proxy.credentials.as_ref().map(Secret::expose), credentials, "{text}");
    };
    check("http://proxy.internal:3128", "proxy.internal", 3128, None);
    check("http://10.0.0.1:80/", "10.0.0.1", 80, None);
    check("http://[::1]:3128", "::1", 3128, None);
    check("http://me:p%40ss%3Aword@proxy:1", "proxy", 1, Some("me:p@ss:word"));
    check("http://me@proxy:1", "proxy", 1, Some("me:"));
    assert_eq!(load("", &[]).unwrap().targets.proxy, None);
}

#[test]
fn secrets_are_not_shown() {
    let key = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";
    let env = [
        ("POSTHASTE_SECRETS__KEY", key),
        ("POSTHASTE_API__ADMIN_KEY", "hidden"),
        ("POSTHASTE_REDIS__URL", "redis://:hidden@host"),
        ("POSTHASTE_TARGETS__PROXY", "http://me:hidden@proxy:3128"),
    ];
    let config = load("", &env).unwrap();
    assert_eq!(config.secrets.keys.len(), 1);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden") && !shown.contains("115, 101"), "{shown}");
}
