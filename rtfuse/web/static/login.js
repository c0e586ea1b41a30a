// The address printed by the rig carries the token behind a #, which browsers send to nobody.
const token = document.getElementById("token");

function logIn() {
  const given = decodeURIComponent(location.hash.slice(1));
  if (!given) return false;
  history.replaceState(null, "", "login");
  token.value = given;
  document.getElementById("form").requestSubmit();
  return true;
}

addEventListener("hashchange", logIn);
if (!logIn()) {
  // A link from elsewhere comes without the cookie; asked from here, it is there.
  fetch("live").then((answer) => answer.status !== 401 && location.replace("./"));
}
