//! API keys: what a key may do, and the text that stands for it.
//!
//! A key's text is `ph_<id>_<secret>`: the id finds its record, and of the whole text only a hash is kept.

use data_encoding::BASE64URL_NOPAD;

use super::id::KeyId;

const PREFIX: &str = "ph_";

/// What a key was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRole {
    /// Everything, for all tenants.
    Admin,
    /// Everything of one tenant.
    Tenant,
    /// Publish events of one tenant, and nothing else.
    Publish,
    /// Look at what one tenant has, and change nothing.
    Read,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To publish events.
    Publish,
    /// To look at what a tenant has.
    Read,
    /// To change it, or to make the engine send.
    Write,
    /// What is no tenant's: tenants and keys.
    Admin,
}

impl KeyRole {
    pub const ALL: [Self; 4] = [Self::Admin, Self::Tenant, Self::Publish, Self::Read];

    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Tenant => "tenant",
            Self::Publish => "publish",
            Self::Read => "read",
        }
    }

    /// The role of a public word.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether a key of this role may do what needs `access`.
    pub fn allows(self, access: Access) -> bool {
        match self {
            Self::Admin => true,
            Self::Tenant => access != Access::Admin,
            Self::Publish => access == Access::Publish,
            Self::Read => access == Access::Read,
        }
    }
}

impl Access {
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Write, Self::Admin];

    /// The roles that have it, as a list for people.
    pub fn roles(self) -> String {
        let allowed = KeyRole::ALL.into_iter().filter(|role| role.allows(self));
        allowed.map(|role| format!("`{}`", role.name())).collect::<Vec<_>>().join(", ")
    }
}

/// The text of the key `id`, from random bytes. It is shown once.
pub fn key_text(id: KeyId, secret: &[u8; 32]) -> String {
    let id = id.to_string();
    let id = id.strip_prefix(KeyId::PREFIX).unwrap_or(&id);
    format!("{PREFIX}{id}_{}", BASE64URL_NOPAD.encode(secret))
}

/// Which key a text claims to be; `None` for what is no key's text.
pub fn key_of_text(text: &str) -> Option<KeyId> {
    let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
    format!("{}{id}", KeyId::PREFIX).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_allows_what_it_was_made_for() {
        let check = |role: KeyRole, allowed: &[Access]| {
            for access in Access::ALL {
                assert_eq!(role.allows(access), allowed.contains(&access), "{role:?} {access:?}");
            }
            assert_eq!(KeyRole::of_name(role.name()), Some(role));
        };
        check(KeyRole::Admin, &Access::ALL);
        check(KeyRole::Tenant, &[Access::Publish, Access::Read, Access::Write]);
        check(KeyRole::Publish, &[Access::Publish]);
        check(KeyRole::Read, &[Access::Read]);
        assert_eq!(KeyRole::of_name("root"), None);
        assert_eq!(Access::Read.roles(), "`admin`, `tenant`, `read`");
    }

    #[test]
    fn a_text_names_its_key_whatever_its_secret_holds() {
        let id = KeyId { ms: 1_790_000_000_000, random: u64::MAX };
        for secret in [[0; 32], [0xff; 32], [0xfb; 32]] {
            assert_eq!(key_of_text(&key_text(id, &secret)), Some(id));
        }
        for other in ["", "ph_", "ph_x_y", "key", "ph_admin_abc", &id.to_string()] {
            assert_eq!(key_of_text(other), None, "{other}");
        }
    }
}
