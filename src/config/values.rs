//! How a setting's value is read, where its type alone does not say enough.
//!
//! A message completes "`delivery.timeout_seconds` (config.toml): …" and never quotes what may be a secret.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de::Error};
use url::{Host, Url};

use crate::domain::{
    Invalid,
    retry::{Retry, RetryPolicy},
};

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for those who must compare or send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    /// `user:password`.
    pub credentials: Option<Secret>,
}

/// Which Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisUrl {
    /// A private one that `serve` starts.
    Embedded,
    /// One of the user's own; the URL may hold a password.
    Own(Secret),
}

impl<'de> Deserialize<'de> for RedisUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        match text.split_once("://") {
            Some((scheme, rest))
                if !rest.is_empty() && ["redis", "valkey", "unix"].iter().any(|s| scheme.starts_with(s)) =>
            {
                Ok(Self::Own(Secret(text)))
            }
            _ => Err(D::Error::custom("must be `embedded` or a URL that starts with redis://, rediss:// or unix://")),
        }
    }
}

/// A whole number from `MIN` to `MAX`.
pub fn between<'de, const MIN: i64, const MAX: i64, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<i64>,
    D: Deserializer<'de>,
{
    let value = i64::deserialize(deserializer)?;
    let inside = (MIN..=MAX).contains(&value).then(|| T::try_from(value).ok()).flatten();
    inside.ok_or_else(|| D::Error::custom(format_args!("must be from {MIN} to {MAX}, not {value}")))
}

/// The same for a setting that has no default.
pub fn between_if_set<'de, const MIN: i64, const MAX: i64, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: TryFrom<i64>,
    D: Deserializer<'de>,
{
    between::<MIN, MAX, T, D>(deserializer).map(Some)
}

pub fn seconds<'de, const MIN: i64, const MAX: i64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    between::<MIN, MAX, u64, D>(deserializer).map(Duration::from_secs)
}

pub fn hours<'de, const MIN: i64, const MAX: i64, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    between::<MIN, MAX, u64, D>(deserializer).map(|hours| Duration::from_secs(hours * 3_600))
}

pub fn days<'de, const MIN: i64, const MAX: i64, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    between::<MIN, MAX, u64, D>(deserializer).map(|days| Duration::from_secs(days * 86_400))
}

/// Megabytes as bytes; 0 is no limit.
pub fn megabytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let megabytes = between::<0, 1_000_000_000, u64, D>(deserializer)?;
    Ok((megabytes > 0).then_some(megabytes * 1_000_000))
}

/// What keys start with: no braces, which would move every key into one cluster slot, and no separators.
pub fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("must be 1 to 64 letters, digits, `_`, `.` or `-`, not `{text}`")))
    }
}

pub fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(format_args!("must be an IP address and a port, such as 127.0.0.1:8080, not `{text}`"))
    })
}

/// Empty is none. It travels in a header: visible ASCII only.
pub fn admin_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(D::Error::custom("must be visible ASCII characters without spaces"));
    }
    Ok((!text.is_empty()).then_some(Secret(text)))
}

/// Empty is none.
pub fn public_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(url)),
        _ => Err(D::Error::custom(format_args!("must be a URL such as https://hooks.example.com, not `{text}`"))),
    }
}

/// Empty is none. A password would be shown with the URL, and there is a variable for headers.
pub fn collector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let url = Url::parse(&text).ok().filter(is_plain);
    url.map(Some).ok_or_else(|| {
        D::Error::custom(
            "must be a URL such as http://127.0.0.1:4318, without user, query or fragment: credentials are headers \
             (OTEL_EXPORTER_OTLP_HEADERS)",
        )
    })
}

/// Networks; a bare address is a network of one.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    network_list(deserializer).map(Some)
}

/// Networks of which there may be none.
pub fn network_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.ok_or_else(|| D::Error::custom(format_args!("must hold networks such as 10.1.0.0/16, not `{text}`")))
    };
    texts.iter().map(parse).collect()
}

/// Host names, in lower case.
pub fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    match hosts.iter().find(|host| host.is_empty() || host.contains(['/', '*', ' ', '@'])) {
        Some(wrong) => {
            Err(D::Error::custom(format_args!("must hold host names such as hooks.example.com, not `{wrong}`")))
        }
        None => Ok(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
    }
}

pub fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let ports = Vec::<i64>::deserialize(deserializer)?;
    let parse = |port| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(D::Error::custom(format_args!("must hold ports from 1 to 65535, not {port}"))),
    };
    ports.into_iter().map(parse).collect()
}

/// Empty is none. A path, or a port that is left out, is more likely a mistake than meant.
pub fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Proxy>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = Url::parse(&text).ok().and_then(|url| read_proxy(&text, &url));
    parsed
        .map(Some)
        .ok_or_else(|| D::Error::custom("must be a URL such as http://user:password@proxy.example.com:3128"))
}

fn read_proxy(text: &str, url: &Url) -> Option<Proxy> {
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default()?;
    let is_whole = url.scheme() == "http"
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && text.trim_end_matches('/').ends_with(&format!(":{port}"));
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
    let credentials = match (decoded(url.username())?, url.password()) {
        (user, None) if user.is_empty() => None,
        (user, password) => Some(Secret(format!("{user}:{}", decoded(password.unwrap_or_default())?))),
    };
    is_whole.then_some(Proxy { host, port, credentials })
}

/// Empty is none.
pub fn path_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

/// Keys in base64, comma-separated; empty is none.
pub fn encryption_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u8; 32]>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
    keys.map(|key| BASE64_STANDARD.decode(key).ok().and_then(|bytes| bytes.try_into().ok()))
        .collect::<Option<_>>()
        .ok_or_else(|| {
            D::Error::custom("must be base64 of 32 bytes (`openssl rand -base64 32`), or several with commas between")
        })
}

/// A level, or comma-separated levels for modules.
pub fn log_level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    // `EnvFilter` takes an unknown word for a module's name and would log nothing.
    let known = |part: &str| {
        part.rsplit('=')
            .next()
            .is_some_and(|level| level.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok())
    };
    if !text.is_empty() && text.split(',').all(known) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("must be error, warn, info, debug, trace, or module=level, not `{text}`")))
    }
}

/// A table under `[retry]`.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Preset {
    Exponential {
        #[serde(default = "three")]
        retry_count: u32,
        base_ms: u64,
        #[serde(default = "two")]
        factor: f64,
        #[serde(default = "an_hour_in_ms")]
        max_ms: u64,
        #[serde(default)]
        jitter: f64,
    },
    Schedule {
        delays_ms: Vec<u64>,
        retry_count: Option<u32>,
        #[serde(default)]
        jitter: f64,
    },
}

fn three() -> u32 {
    3
}

fn two() -> f64 {
    2.0
}

fn an_hour_in_ms() -> u64 {
    3_600_000
}

#[derive(Deserialize)]
#[serde(try_from = "Preset")]
struct Checked(Retry);

impl TryFrom<Preset> for Checked {
    type Error = String;

    fn try_from(preset: Preset) -> Result<Self, String> {
        let retry = match preset {
            Preset::Exponential { retry_count: count, base_ms, factor, max_ms, jitter } => {
                Retry { count, policy: RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } }
            }
            Preset::Schedule { delays_ms, retry_count, jitter } => {
                let one_each = Retry::schedule(delays_ms, jitter);
                Retry { count: retry_count.unwrap_or(one_each.count), ..one_each }
            }
        };
        match retry.validate() {
            Ok(()) => Ok(Self(retry)),
            // Here the fields stand in the preset's own table.
            Err(Invalid { field, problem }) => {
                Err(format!("{}: {problem}", field.strip_prefix("retry.").unwrap_or(field)))
            }
        }
    }
}

/// Presets by name.
pub fn presets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Retry>, D::Error> {
    let presets = BTreeMap::<String, Checked>::deserialize(deserializer)?;
    Ok(presets.into_iter().map(|(name, Checked(retry))| (name, retry)).collect())
}
