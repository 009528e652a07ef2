// The login: the admin key is sent once, and a cookie that scripts cannot read stands for it.

const form = document.getElementById("login");
const field = document.getElementById("key");
const notice = document.getElementById("notice");
const submit = document.getElementById("submit");

function refuse(message) {
  notice.textContent = message;
  notice.hidden = false;
  field.select();
}

async function logIn() {
  const answer = await fetch("/internal/ui/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ key: field.value.trim() }),
    cache: "no-store",
  });
  if (answer.ok) {
    field.value = "";
    location.replace("/internal/ui/");
    return;
  }
  const body = await answer.json().catch(() => undefined);
  refuse(body?.error?.message ?? `HTTP ${answer.status}`);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  submit.disabled = true;
  notice.hidden = true;
  try {
    await logIn();
  } catch (error) {
    refuse(error.message);
  }
  submit.disabled = false;
});
