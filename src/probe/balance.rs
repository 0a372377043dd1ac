//! The verdict on an account: whether its balance is above its minimum.

use crate::{
    api::Account,
    outcome::{Balance, Detail, Reason},
};

/// Returns reason, detail and, in US dollars, the balance of an account.
pub(super) fn judge(account: Option<Account>) -> (Reason, Option<Detail>, Option<Balance>) {
    let (amount, minimum, in_usd) = match account {
        None => return (Reason::Malformed, Some(Detail::NoBalance), None),
        Some(Account::Unlimited) => return (Reason::Ok, Some(Detail::UnlimitedBalance), None),
        Some(Account::Left { amount, minimum, in_usd }) => (amount, minimum, in_usd),
    };
    // Without a reported minimum, a balance of 0 is too low.
    let low = minimum.map_or(amount <= 0.0, |minimum| amount < minimum);
    let (reason, detail) = match (low, in_usd) {
        (false, true) => (Reason::Ok, None),
        (false, false) => (Reason::Ok, Some(Detail::ForeignBalance)),
        (true, true) => (Reason::Billing, Some(Detail::LowBalance)),
        (true, false) => (Reason::Billing, Some(Detail::LowForeignBalance)),
    };
    (reason, detail, in_usd.then_some(Balance { usd: amount, minimum_usd: minimum }))
}

#[cfg(test)]
mod tests {
    use serde_json::from_str;

    use super::*;
    use crate::{api, outcome::Api};

    #[track_caller]
    fn check(api: Api, answer: &str, reason: Reason, balance: Option<(f64, Option<f64>)>) {
        let answer = from_str(answer).unwrap();
        let (found, detail, reported) = judge(api::of(api).account(&answer));
        assert_eq!(found, reason, "{answer}");
        assert_eq!(reported.map(|balance| (balance.usd, balance.minimum_usd)), balance, "{answer}");
        assert_eq!(detail.is_none(), reason == Reason::Ok && balance.is_some(), "{answer}: {detail:?}");
    }

    #[test]
    fn langmart_balance_and_minimum_are_read() {
        let check = |answer, reason, balance| check(Api::Langmart, answer, reason, balance);
        let both = |usd| Some((usd, Some(0.1)));
        check(r#"{"balance":12.5,"currency":"USD","minimum_required":0.1}"#, Reason::Ok, both(12.5));
        check(r#"{"balance":0.1,"currency":"usd","minimum_required":0.1}"#, Reason::Ok, both(0.1));
        check(r#"{"balance":0.05,"currency":"USD","minimum_required":0.1}"#, Reason::Billing, both(0.05));
        check(r#"{"balance":-3,"minimum_required":0.1}"#, Reason::Billing, both(-3.0));
        // An account that needs nothing; one without a minimum.
        check(r#"{"balance":0,"minimum_required":0}"#, Reason::Ok, Some((0.0, Some(0.0))));
        check(r#"{"balance":0,"minimum_required":null}"#, Reason::Billing, Some((0.0, None)));
        check(r#"{"balance":7}"#, Reason::Ok, Some((7.0, None)));
        // Another currency: classified, but not reported.
        check(r#"{"balance":9,"currency":"EUR","minimum_required":1}"#, Reason::Ok, None);
        check(r#"{"balance":0.5,"currency":"EUR","minimum_required":1}"#, Reason::Billing, None);
    }

    #[test]
    fn openrouter_limit_of_a_key_is_its_balance() {
        let check = |answer, reason, balance| check(Api::Openrouter, answer, reason, balance);
        check(r#"{"data":{"limit":null,"limit_remaining":null,"usage":2}}"#, Reason::Ok, None);
        check(r#"{"data":{"limit_remaining":null}}"#, Reason::Ok, None);
        check(r#"{"data":{"limit":10,"limit_remaining":7.25}}"#, Reason::Ok, Some((7.25, None)));
        check(r#"{"data":{"limit":10,"limit_remaining":0}}"#, Reason::Billing, Some((0.0, None)));
        check(r#"{"data":{"limit":10,"limit_remaining":-0.01}}"#, Reason::Billing, Some((-0.01, None)));
        check(r#"{"data":{"limit":10,"limit_remaining":null}}"#, Reason::Malformed, None);
    }

    #[test]
    fn other_answers_are_no_balance() {
        for answer in [
            "null",
            "[]",
            "{}",
            r#"{"balance":null}"#,
            r#"{"balance":"12.5"}"#,
            r#"{"balance":1e300}"#,
            r#"{"balance":1,"minimum_required":"0.1"}"#,
            r#"{"balance":1,"minimum_required":-1}"#,
            r#"{"balance":1,"currency":7}"#,
            r#"{"data":null}"#,
            r#"{"data":[1]}"#,
            r#"{"data":{}}"#,
            r#"{"data":{"limit":null}}"#,
            r#"{"data":{"limit_remaining":"7"}}"#,
        ] {
            check(Api::Langmart, answer, Reason::Malformed, None);
            check(Api::Openrouter, answer, Reason::Malformed, None);
        }
        check(Api::Openai, r#"{"balance":1}"#, Reason::Malformed, None);
    }
}
