import { useEffect } from "react";
import type { ApiError } from "./api";
import { errorWords } from "./words";

/** Says what did not work, and offers to try again; does so by itself if the backend said when. */
export function Trouble({ error, onRetry }: { error: ApiError; onRetry: () => void }) {
  useEffect(() => {
    if (error.retryAfter === undefined) return;
    const timer = setTimeout(onRetry, error.retryAfter * 1000);
    return () => clearTimeout(timer);
  }, [error, onRetry]);
  return (
    <div className="note bad" role="alert">
      <p>{errorWords(error)}</p>
      <button type="button" className="quiet" onClick={onRetry}>
        Try again
      </button>
    </div>
  );
}
