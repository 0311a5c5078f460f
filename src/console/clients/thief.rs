//! What a thief of a client's secret could do, in words, from its terms. No I/O.

use crate::common::scope::Scope;
use crate::oauth::clients::ClientInfo;

/// Says what a thief could do, the worst first.
#[must_use]
pub fn could(client: &ClientInfo, budget: u32) -> Vec<String> {
    let mut could = Vec::new();
    if client.disabled_at.is_some() {
        could.push("Nothing: the client is disabled.".to_owned());
        return could;
    }
    let scopes = Scope::ALL.into_iter().filter(|scope| client.scopes.contains(*scope));
    could.extend(scopes.map(|scope| by_scope(scope, budget)));
    could.reverse();
    could.extend(bounds(client));
    could
}

fn by_scope(scope: Scope, budget: u32) -> String {
    match scope {
        Scope::TokensRead => format!(
            "Read {budget} bank tokens a minute in the clear, {} a day, each with a row in the trail. What was read works at the bank link until it is delinked.",
            u64::from(budget) * 1440
        ),
        Scope::Admin => "Make clients with any scope in this app, revoke every connection, read the trail.".to_owned(),
        Scope::DapiCall => "See accounts and payments of every connection and start transfers at their banks, without ever holding a token.".to_owned(),
        Scope::UpstreamsUse => "Take the tokens of this app’s upstreams and call them.".to_owned(),
        Scope::UsersErase => "Erase any user whose name is known. That cannot be undone.".to_owned(),
        Scope::ConnectionsRevoke => "End any connection: its user has to link the bank again.".to_owned(),
        Scope::ConnectionsWrite => "Hand in codes and tokens under any user’s name.".to_owned(),
        Scope::SessionsCreate => "Make sessions by which a browser links a bank under any user’s name.".to_owned(),
        Scope::ConnectionsRead => "See who has linked which bank.".to_owned(),
    }
}

fn bounds(client: &ClientInfo) -> Vec<String> {
    let mut bounds = vec![format!(
        "Until the client is disabled: then it ends within five seconds on every replica. After the secret alone is ended, tokens that were got with it live for {} more seconds at most.",
        client.token_lifetime
    )];
    if client.dpop_bound {
        bounds
            .push("A stolen access token alone is worth nothing: it is bound to a key.".to_owned());
    }
    if !client.required_scopes.is_empty() {
        bounds
            .push(format!("Each token request has to name {}.", client.required_scopes.join(", ")));
    }
    bounds
}
