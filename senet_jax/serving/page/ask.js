// Asks the server. What goes wrong is an Error with one line for people; `options.signal` gives up before.
export async function ask(path, seconds = 30, options = {}) {
  const late = AbortSignal.timeout(1000 * seconds);
  const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
  let response, text;
  try {
    response = await fetch(path, { ...options, signal });
    text = await response.text();
  } catch {
    throw new Error(late.aborted ? `The server has given no answer within ${seconds} s; try again.`
      : 'The server cannot be reached; see whether it still runs, and try again.');
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch { /* of a proxy, perhaps */ }
  if (response.ok && answer) return answer;
  throw new Error(answer?.error ?? `The server gives no answer, but status ${response.status}; try again later.`);
}

// Asks for what the page is nothing without: it says what goes wrong, and the script ends.
export function need(path) {
  return ask(path).catch((error) => {
    const about = document.querySelector('#about');
    about.textContent = error.message;
    Object.assign(about, { className: 'bad', role: 'alert' });
    throw error;
  });
}
