import { useState } from "react";
import { api } from "./api";
import { opener } from "./bankLinks";
import { ConnectBank } from "./ConnectBank";
import type { CardProps } from "./ConnectionCard";

/**
 * The bank has refused the user's login. Strongroom makes no call until the user has acted, because going on could lock
 * their bank account.
 */
export function Attention(props: CardProps) {
  return (
    <div className="note bad" role="alert">
      <p>Your bank wants you to log in again before Tally can read anything.</p>
      {props.bank.id === "plaid" ? <Repair {...props} /> : <Relink {...props} />}
    </div>
  );
}

/** At Plaid: Link repairs the login that is there ("update mode"). There is nothing to hand in afterwards. */
function Repair({ connection, bank, user, onChange }: CardProps) {
  const [state, setState] = useState<"idle" | "open" | "failed">("idle");

  function repair() {
    if (state === "open") return;
    setState("open");
    void opener(bank, user, () => api.repairToken(connection))({
      onResult: () => api.clearAttention(connection).then(onChange, () => setState("failed")),
      onExit: (error) => setState(error ? "failed" : "idle"),
    });
  }

  return (
    <div className="connect">
      <button type="button" className="primary" aria-disabled={state === "open"} onClick={repair}>
        Log in again
      </button>
      <p className="status" role="status">
        {state === "failed" && "That did not work. Please try again."}
      </p>
    </div>
  );
}

/** At Dapi: the login is connected once more, which replaces this connection. Or the user has put it right at the bank. */
function Relink({ connection, onChange, ...rest }: CardProps) {
  const [failed, setFailed] = useState(false);
  return (
    <>
      <ConnectBank {...rest} onChange={onChange} instead={connection.id} />
      <button type="button" className="quiet" onClick={() => void api.clearAttention(connection).then(onChange, () => setFailed(true))}>
        My bank says it works again
      </button>
      {failed && <p role="alert">That did not work. Please try again.</p>}
    </>
  );
}
