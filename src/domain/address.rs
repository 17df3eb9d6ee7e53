//! Where deliveries may be posted to, and which headers a user may add to them.
//!
//! A URL is checked when it is given, and each address that its host resolves to when it is connected to: only the
//! second check stops a name that leads into our own network, and only the first can tell the user.

mod headers;
mod ranges;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use url::{Host, Url};

pub use headers::check_headers;

use super::Invalid;

/// Bytes of a URL, at most.
const MAX_URL_BYTES: usize = 2_048;

/// What `[targets]` allows beyond `https` to public addresses. The default allows `http` too, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressRules {
    pub require_https: bool,
    /// Networks that may be posted to, by `http` too, although their addresses are not public.
    pub allow_cidrs: Vec<IpNet>,
    /// Hosts that may be posted to, by `http` too, wherever they resolve to; one that starts with `.` stands for all
    /// below it.
    pub allow_hosts: Vec<String>,
    /// The only ports that may be posted to; empty: all.
    pub ports: Vec<u16>,
}

impl AddressRules {
    /// Checks a webhook's URL and returns it as it will be used. A fragment is dropped: it is never sent.
    ///
    /// # Errors
    /// Why it cannot be posted to; the text holds nothing secret of the URL.
    pub fn check_url(&self, text: &str) -> Result<Url, Invalid> {
        let url = parse(text).map_err(|problem| Invalid::new("url", problem))?;
        self.check(&url)?;
        Ok(url)
    }

    /// Checks once more where a URL leads that [`check_url`](Self::check_url) took before, perhaps by other rules.
    ///
    /// # Errors
    /// As for a text, by the field `url`.
    pub fn check(&self, url: &Url) -> Result<(), Invalid> {
        self.check_target(url).map_err(|problem| Invalid::new("url", problem))
    }

    fn check_target(&self, url: &Url) -> Result<(), String> {
        if !matches!(url.scheme(), "https" | "http") {
            return Err("it must start with `https://`".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a user name or password is not allowed; put credentials into a header".to_owned());
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err("a host is missing".to_owned());
        };
        if port == 0 || !(self.ports.is_empty() || self.ports.contains(&port)) {
            return Err(format!("port {port} is not allowed (targets.ports)"));
        }
        if url.host_str().is_some_and(|host| self.allows_host(host)) {
            return Ok(());
        }
        self.check_host(&host)?;
        if self.require_https && url.scheme() != "https" && !self.allows_cleartext(&host) {
            return Err("only https is allowed (targets.require_https)".to_owned());
        }
        Ok(())
    }

    /// What of a host can be refused before it is resolved.
    fn check_host(&self, host: &Host<&str>) -> Result<(), String> {
        let checked = match host {
            Host::Ipv4(ip) => self.check_address(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => self.check_address(IpAddr::V6(*ip)),
            // These names stand for the loopback addresses, whatever a resolver says (RFC 6761 §6.3).
            Host::Domain(name) if is_localhost(name) && !self.allows_loopback() => Err("a loopback address"),
            Host::Domain(_) => Ok(()),
        };
        checked.map_err(|kind| format!("{host} is {kind}, which is not allowed (targets.allow_cidrs)"))
    }

    /// Whether the host was named in `allow_hosts`. Its addresses are not to be checked then.
    pub fn allows_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.allow_hosts.iter().map(|allowed| allowed.to_ascii_lowercase()).any(|allowed| {
            if allowed.starts_with('.') { host.ends_with(&allowed) && host != allowed } else { host == allowed }
        })
    }

    /// Checks an address that is about to be connected to. One that carries an IPv4 address is judged by that.
    ///
    /// # Errors
    /// What it is, as "a loopback address".
    pub fn check_address(&self, ip: IpAddr) -> Result<(), &'static str> {
        if self.allows_address(ip) {
            return Ok(());
        }
        match ranges::carried_ipv4(ip) {
            Some(inner) => self.check_address(IpAddr::V4(inner)),
            None => ranges::special(ip).map_or(Ok(()), Err),
        }
    }

    fn allows_address(&self, ip: IpAddr) -> bool {
        self.allow_cidrs.iter().any(|network| network.contains(&ip.to_canonical()))
    }

    fn allows_loopback(&self) -> bool {
        self.allows_address(Ipv4Addr::LOCALHOST.into()) || self.allows_address(Ipv6Addr::LOCALHOST.into())
    }

    /// `http` is for what does not leave a network that was named. A name may resolve to anywhere: not for names.
    fn allows_cleartext(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Ipv4(ip) => self.allows_address(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => self.allows_address(IpAddr::V6(*ip)),
            Host::Domain(name) => is_localhost(name) && self.allows_loopback(),
        }
    }
}

/// An absolute `http` or `https` URL without what a webhook's must not have.
fn parse(text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!("{} bytes; at most {MAX_URL_BYTES} are allowed", text.len()));
    }
    // The parser would pass over some of these, and the user would not see what is called.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a space or control character; write it as %20, for example".to_owned());
    }
    let mut url = Url::parse(text).map_err(|error| format!("not an absolute URL: {error}"))?;
    let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if !begins("https://") && !begins("http://") {
        return Err("it must start with `https://`".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(allow_cidrs: &[&str], allow_hosts: &[&str]) -> AddressRules {
        AddressRules {
            require_https: true,
            allow_cidrs: allow_cidrs.iter().map(|network| network.parse().unwrap()).collect(),
            allow_hosts: allow_hosts.iter().map(|host| (*host).to_owned()).collect(),
            ports: vec![],
        }
    }

    fn good(rules: &AddressRules, url: &str) {
        let result = rules.check_url(url);
        assert!(result.is_ok(), "{url}: {result:?}");
    }

    fn bad(rules: &AddressRules, url: &str, reason: &str) {
        let refusal = rules.check_url(url).expect_err(url);
        assert_eq!(refusal.field, "url", "{url}");
        assert!(refusal.problem.contains(reason), "{url}: {}", refusal.problem);
    }

    #[test]
    fn a_url_is_absolute_and_https() {
        let rules = rules(&[], &[]);
        for url in [
            "https://example.com",
            "HTTPS://Example.COM:8443/hook?a=b",
            "https://b\u{fc}cher.example/\u{e9}",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
        ] {
            good(&rules, url);
        }
        bad(&rules, "", "absolute");
        bad(&rules, "example.com/hook", "absolute");
        bad(&rules, "/hook", "absolute");
        bad(&rules, "https://", "absolute");
        bad(&rules, "https://exa mple.com", "space");
        bad(&rules, " https://example.com", "space");
        bad(&rules, "https://example.com/\n", "control");
        bad(&rules, "ht\ttps://example.com/", "control");
        bad(&rules, "ftp://example.com/", "https://");
        bad(&rules, "file:///etc/passwd", "https://");
        bad(&rules, "https:example.com", "https://");
        bad(&rules, "https:\\\\example.com", "https://");
        bad(&rules, "http://example.com/", "only https");
        bad(&rules, "https://me@example.com/", "password");
        bad(&rules, "https://:hunter2@example.com/", "password");
        bad(&rules, "https://example.com:0/", "port 0");
        bad(&rules, "https://example.com:65536/", "absolute");
        bad(&rules, &format!("https://example.com/{}", "x".repeat(2_029)), "2049 bytes");
    }

    #[test]
    fn a_refusal_does_not_tell_a_password() {
        let refusal = rules(&[], &[]).check_url("https://me:hunter2@example.com/").unwrap_err();
        assert!(!refusal.to_string().contains("hunter2"));
    }

    #[test]
    fn a_url_is_returned_without_its_fragment() {
        let url = rules(&[], &[]).check_url("https://Example.com/a?b#c").unwrap();
        assert_eq!(url.as_str(), "https://example.com/a?b");
    }

    #[test]
    fn http_is_taken_where_https_is_not_required() {
        let lax = AddressRules::default();
        good(&lax, "http://example.com/");
        bad(&lax, "http://127.0.0.1/", "a loopback address");
    }

    #[test]
    fn an_address_is_seen_through_every_way_to_write_it() {
        let rules = rules(&[], &[]);
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.0.0.0x1",
            "127.0.0.1.",
            "\u{ff11}27.0.0.1",
            "%31%32%37.0.0.1",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ] {
            bad(&rules, &format!("https://{host}/"), "a loopback address");
        }
        bad(&rules, "https://[fd00:ec2::254]/latest", "a cloud metadata address");
    }

    #[test]
    fn an_allowed_network_may_be_posted_to_by_http_too() {
        let rules = rules(&["127.0.0.0/8", "10.1.0.0/16"], &[]);
        for url in [
            "http://127.0.0.1:8080/",
            "https://127.9.9.9/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost:1/",
            "http://a.localhost/",
            "http://10.1.2.3/",
        ] {
            good(&rules, url);
        }
        bad(&rules, "http://10.2.0.1/", "a private address");
        bad(&rules, "http://[::1]/", "a loopback address");
        bad(&rules, "http://example.com/", "only https");
        bad(&rules, "http://8.8.8.8/", "only https");
        bad(&rules, "http://notlocalhost/", "only https");
    }

    #[test]
    fn an_allowed_host_may_be_posted_to_by_http_too() {
        let rules = rules(&[], &["crm.internal", ".Svc.Cluster", "10.0.0.7"]);
        for url in ["http://crm.internal/", "http://CRM.internal.:81/", "http://a.b.svc.cluster/", "http://10.0.0.7/"] {
            good(&rules, url);
        }
        for url in
            ["http://a.crm.internal/", "http://svc.cluster/", "http://xsvc.cluster/", "http://crm.internal.evil/"]
        {
            bad(&rules, url, "only https");
        }
        bad(&rules, "http://10.0.0.8/", "a private address");
        good(&rules, "https://example.com/");
    }

    #[test]
    fn only_the_ports_named_may_be_posted_to() {
        let rules = AddressRules { ports: vec![443, 8443], ..rules(&[], &["crm.internal"]) };
        good(&rules, "https://example.com/");
        good(&rules, "https://example.com:8443/");
        bad(&rules, "https://example.com:22/", "port 22");
        bad(&rules, "http://crm.internal/", "port 80");
    }

    #[test]
    fn an_allowed_address_is_allowed_in_every_form() {
        let rules = rules(&["10.0.0.0/8", "fd00::/8"], &[]);
        let check = |ip: &str, expected: Result<(), &str>| {
            assert_eq!(rules.check_address(ip.parse().unwrap()), expected, "{ip}");
        };
        for ip in ["10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "fd12::1", "8.8.8.8"] {
            check(ip, Ok(()));
        }
        check("192.168.0.1", Err("a private address"));
        check("::ffff:192.168.0.1", Err("a private address"));
        check("127.0.0.1", Err("a loopback address"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?:)?[/\\\\]{0,3}\\PC{0,40}") {
            let _ = rules(&["127.0.0.0/8"], &[".internal"]).check_url(&text);
        }

        #[test]
        fn a_url_that_is_taken_is_taken_again_as_it_was_returned(host in "[a-z0-9.]{1,20}", path in "[ -~]{0,20}") {
            let rules = rules(&[], &[]);
            if let Ok(url) = rules.check_url(&format!("https://{host}/{path}")) {
                prop_assert_eq!(rules.check_url(url.as_str()), Ok(url));
            }
        }

        #[test]
        fn an_ipv4_address_is_judged_alike_inside_ipv6(ip: u32) {
            let rules = rules(&["10.0.0.0/8"], &[]);
            let ip = Ipv4Addr::from(ip);
            let [a, b] = [(u32::from(ip) >> 16) as u16, u32::from(ip) as u16];
            let expected = rules.check_address(ip.into());
            for carrier in [
                ip.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 1, 2, 3, 4, 5),
                Ipv6Addr::new(0x2001, 0, 9, 9, 0, 0, !a, !b),
            ] {
                prop_assert_eq!(rules.check_address(carrier.into()), expected);
            }
        }
    }
}
