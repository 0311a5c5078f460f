import { useState } from "react";
import { api, ApiError, type Bank, type Connection } from "./api";
import { AccountList } from "./AccountList";
import { Attention } from "./Attention";
import { Trouble } from "./Trouble";
import { useRead } from "./useLoad";
import { errorWords, statusWords } from "./words";

export interface CardProps {
  connection: Connection;
  bank: Bank;
  user: string;
  strongroomUrl: string;
  onChange: () => void;
}

export function ConnectionCard(props: CardProps) {
  const { connection, onChange } = props;
  const usable = connection.status === "active" && !connection.attention;
  const read = async () => (usable ? api.accounts(connection) : undefined);
  const [{ value, error, loading }, reload] = useRead(read, onChange);

  const { label, tone, more } = statusWords(connection);
  const name = connection.bankName ?? value?.bankName ?? `Bank at ${props.bank.name}`;
  return (
    <article className="card" aria-label={name}>
      <header>
        <h3>{name}</h3>
        <span className={`pill ${tone}`}>{label}</span>
      </header>
      {more && <p>{more}</p>}
      {connection.duplicate && <p className="note">You have connected the same accounts before.</p>}
      {connection.attention && <Attention {...props} />}
      {usable && !value && loading && <div className="skeleton" role="status" aria-label="Reading your accounts" />}
      {usable && error && <Trouble error={error} onRetry={reload} />}
      {value && <AccountList connection={connection} accounts={value.accounts} onChange={onChange} />}
      <Disconnect connection={connection} name={name} onDone={onChange} />
    </article>
  );
}

/** The user's own decision, asked for twice. */
function Disconnect({ connection, name, onDone }: { connection: Connection; name: string; onDone: () => void }) {
  const [asked, setAsked] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError>();

  async function disconnect() {
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await api.disconnect(connection);
      onDone();
    } catch (error) {
      setError(error instanceof ApiError ? error : new ApiError("internal"));
      setBusy(false);
    }
  }

  return (
    <footer>
      {!asked && (
        <button type="button" className="quiet" onClick={() => setAsked(true)}>
          Disconnect
        </button>
      )}
      {asked && (
        <div role="group" aria-label={`Disconnect ${name}?`} className="row">
          <span>Disconnect {name}?</span>
          <button type="button" className="danger" autoFocus aria-disabled={busy} onClick={() => void disconnect()}>
            {busy ? "Disconnecting…" : "Yes, disconnect"}
          </button>
          <button type="button" className="quiet" onClick={() => setAsked(false)}>
            Keep it
          </button>
        </div>
      )}
      {error && <p className="note bad" role="alert">{errorWords(error)}</p>}
    </footer>
  );
}
