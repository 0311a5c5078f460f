use proptest::prelude::*;

use crate::connections::model::*;

const PENDING: State = State::Pending(Held::Code);
const HELD: State = State::Pending(Held::Token);
const REVOKING: State = State::Revoking(RevocationKind::Delink, Held::Code);
const REVOKING_TOKEN: State = State::Revoking(RevocationKind::Delink, Held::Token);
const STATES: [State; 8] = [
    PENDING,
    HELD,
    State::Active,
    REVOKING,
    REVOKING_TOKEN,
    State::Orphaned,
    State::Revoked,
    State::Failed,
];

fn attempt() -> Attempt {
    Attempt { current: true, unanswered_before: false, window_open: true, probe: true }
}

fn refusal() -> Failure {
    Failure::own("CODE_UNKNOWN", "no such code")
}

fn another() -> ConnectionId {
    ConnectionId::new()
}

#[test]
fn a_token_under_an_old_lease_is_an_answer_and_nothing_else_is() {
    let stale = Attempt { current: false, ..attempt() };
    let alone = BankLogin::default();
    let transition = |answer| after_exchange(PENDING, stale, alone, answer);
    assert_eq!(transition(Answer::Token), Transition::Activate { supersedes: None });
    assert_eq!(transition(Answer::Refused(refusal())), Transition::Nothing);
    assert_eq!(transition(Answer::Unanswered("x".into())), Transition::Nothing);
    assert_eq!(transition(Answer::NotProcessed("x".into())), Transition::Nothing);
}

#[test]
fn a_pending_connection_looks_at_its_login_before_it_takes_the_token() {
    let (older, newer) = (another(), another());
    for (login, transition) in [
        (BankLogin::default(), Transition::Activate { supersedes: None }),
        (
            BankLogin { older_active: Some(older), ..BankLogin::default() },
            Transition::Activate { supersedes: Some(older) },
        ),
        (
            BankLogin { newer_active: Some(newer), ..BankLogin::default() },
            Transition::GiveWay { to: newer },
        ),
        (BankLogin { revoking: true, ..BankLogin::default() }, Transition::Hold),
        (
            BankLogin { revoking: true, newer_active: Some(newer), ..BankLogin::default() },
            Transition::GiveWay { to: newer },
        ),
    ] {
        assert_eq!(
            after_exchange(PENDING, attempt(), login, Answer::Token),
            transition,
            "{login:?}"
        );
        assert_eq!(on_token_for_pending(login), transition, "held, it follows the same rules");
    }
    let taken = BankLogin { of_another_user: true, ..BankLogin::default() };
    let transition = after_exchange(PENDING, attempt(), taken, Answer::Token);
    assert!(
        matches!(transition, Transition::Fail(Status::Rejected, f) if f.kind == Failure::OF_ANOTHER_USER)
    );
}

#[test]
fn an_orphan_takes_a_late_token_unless_something_newer_is_there() {
    let transition = |login| after_exchange(State::Orphaned, attempt(), login, Answer::Token);
    let older = another();
    assert_eq!(transition(BankLogin::default()), Transition::Activate { supersedes: None });
    let with_older = BankLogin { older_active: Some(older), ..BankLogin::default() };
    assert_eq!(transition(with_older), Transition::Activate { supersedes: Some(older) });
    for login in [
        BankLogin { newer: true, ..BankLogin::default() },
        BankLogin { of_another_user: true, ..BankLogin::default() },
        BankLogin { revoking: true, ..BankLogin::default() },
    ] {
        assert_eq!(transition(login), Transition::DropToken, "{login:?}");
    }
}

#[test]
fn a_refusal_rejects_or_orphans_by_what_went_out_before() {
    let transition = |state, unanswered_before| {
        let attempt = Attempt { unanswered_before, ..attempt() };
        after_exchange(state, attempt, BankLogin::default(), Answer::Refused(refusal()))
    };
    assert_eq!(transition(PENDING, false), Transition::Fail(Status::Rejected, refusal()));
    assert!(
        matches!(transition(PENDING, true), Transition::Fail(Status::Orphaned, f) if f.kind == "answer_lost")
    );
    assert!(matches!(
        transition(REVOKING, false),
        Transition::EndRevocation { confirmed: true, .. }
    ));
    assert!(matches!(
        transition(REVOKING, true),
        Transition::EndRevocation { confirmed: false, .. }
    ));
}

#[test]
fn silence_is_probed_for_until_the_window_closes_or_probing_is_off() {
    let transition =
        |state, attempt, answer| after_exchange(state, attempt, BankLogin::default(), answer);
    let silence = || Answer::Unanswered("x".into());
    let not_now = || Answer::NotProcessed("x".into());
    let closed = Attempt { window_open: false, ..attempt() };
    let no_probe = Attempt { probe: false, ..attempt() };

    assert_eq!(
        transition(PENDING, attempt(), silence()),
        Transition::TryAgain { unanswered: true, what: "x".into() }
    );
    assert_eq!(
        transition(PENDING, attempt(), not_now()),
        Transition::TryAgain { unanswered: false, what: "x".into() }
    );
    assert_eq!(
        transition(PENDING, no_probe, not_now()),
        Transition::TryAgain { unanswered: false, what: "x".into() }
    );
    assert!(matches!(
        transition(PENDING, no_probe, silence()),
        Transition::Fail(Status::Orphaned, _)
    ));
    assert!(
        matches!(transition(PENDING, closed, silence()), Transition::Fail(Status::Expired, f) if f.kind == "outcome_unknown")
    );
    assert!(
        matches!(transition(PENDING, closed, not_now()), Transition::Fail(Status::Expired, f) if f.kind == "code_expired")
    );
    assert!(matches!(
        transition(REVOKING, closed, silence()),
        Transition::EndRevocation { confirmed: false, .. }
    ));
    assert!(matches!(
        transition(REVOKING, closed, not_now()),
        Transition::EndRevocation { confirmed: true, .. }
    ));
    assert!(matches!(
        transition(REVOKING, no_probe, silence()),
        Transition::EndRevocation { confirmed: false, .. }
    ));
    assert!(matches!(
        transition(REVOKING, attempt(), silence()),
        Transition::TryAgain { unanswered: true, .. }
    ));
}

#[test]
fn asking_for_a_revocation_does_what_the_state_allows() {
    use RevocationTransition::{Already, Begin, End, NotActive};
    for (state, leased, with_dapi, without_dapi) in [
        (PENDING, false, End { confirmed: true }, End { confirmed: true }),
        (PENDING, true, Begin, End { confirmed: false }),
        (HELD, false, Begin, End { confirmed: false }),
        (HELD, true, Begin, End { confirmed: false }),
        (State::Active, true, Begin, End { confirmed: false }),
        (REVOKING, true, Already, End { confirmed: false }),
        (REVOKING_TOKEN, true, Already, End { confirmed: false }),
        (State::Revoked, true, Already, Already),
        (State::Orphaned, true, NotActive, NotActive),
        (State::Failed, true, NotActive, NotActive),
    ] {
        assert_eq!(on_revocation(state, leased, true), with_dapi, "{state:?}");
        assert_eq!(on_revocation(state, leased, false), without_dapi, "{state:?}");
    }
}

#[test]
fn delinked_is_said_only_where_dapi_confirmed() {
    assert_eq!(RevocationKind::Delink.ends(true), Status::Delinked);
    assert_eq!(RevocationKind::Delink.ends(false), Status::Invalidated);
    assert_eq!(RevocationKind::Invalidate.ends(true), Status::Invalidated);
}

fn any_login() -> impl Strategy<Value = BankLogin> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(of_another_user, revoking, older, newer_active, newer)| BankLogin {
            of_another_user,
            active_of_another_user: of_another_user && newer,
            revoking,
            older_active: older.then(another),
            newer_active: newer_active.then(another),
            newer: newer || newer_active,
        },
    )
}

fn any_attempt() -> impl Strategy<Value = Attempt> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(current, unanswered_before, window_open, probe)| Attempt {
            current,
            unanswered_before,
            window_open,
            probe,
        },
    )
}

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Token),
        Just(Answer::Refused(refusal())),
        Just(Answer::Unanswered("x".into())),
        Just(Answer::NotProcessed("x".into())),
    ]
}

proptest! {
    /// Whatever comes, in whatever order.
    #[test]
    fn no_answer_undoes_an_end_but_an_orphans(
        state in prop::sample::select(&STATES), attempt in any_attempt(),
        login in any_login(), answer in any_answer(),
    ) {
        let transition = after_exchange(state, attempt, login, answer);
        if matches!(state, State::Active | State::Revoked | State::Failed) {
            prop_assert!(matches!(transition, Transition::Nothing | Transition::DropToken), "{transition:?}");
        }
        if state == State::Orphaned {
            prop_assert!(matches!(transition, Transition::Nothing | Transition::DropToken | Transition::Activate { .. }), "{transition:?}");
        }
    }

    #[test]
    fn a_login_in_use_is_never_delinked_for_another_connection(
        state in prop::sample::select(&STATES), attempt in any_attempt(), login in any_login(),
    ) {
        let transition = after_exchange(state, attempt, login, Answer::Token);
        if login.active().is_some() || login.of_another_user {
            prop_assert_ne!(transition, Transition::Delink);
        }
    }

    #[test]
    fn nothing_becomes_active_beside_another_active_one_of_its_login(
        state in prop::sample::select(&STATES), attempt in any_attempt(),
        login in any_login(), answer in any_answer(),
    ) {
        if let Transition::Activate { supersedes } = after_exchange(state, attempt, login, answer) {
            prop_assert!(!login.of_another_user && login.newer_active.is_none() && !login.revoking);
            prop_assert_eq!(supersedes, login.older_active);
        }
    }

    #[test]
    fn a_revoked_connection_never_becomes_usable(
        attempt in any_attempt(), login in any_login(), answer in any_answer(),
        state in prop::sample::select(&[REVOKING, REVOKING_TOKEN, State::Revoked]),
    ) {
        let transition = after_exchange(state, attempt, login, answer);
        let usable = matches!(transition, Transition::Activate { .. } | Transition::Hold);
        prop_assert!(!usable, "{:?}", transition);
    }

    #[test]
    fn nothing_is_called_confirmed_while_a_token_may_live_unknown(
        attempt in any_attempt(), login in any_login(), answer in any_answer(),
    ) {
        let transition = after_exchange(REVOKING, attempt, login, answer.clone());
        if let Transition::EndRevocation { confirmed: true, .. } = transition {
            prop_assert!(!attempt.unanswered_before && !matches!(answer, Answer::Unanswered(_)));
        }
    }
}
