// The text of the page whose contrast falls short of WCAG AA, and the lines of charts below 3:1.
function rgba(text) {
  const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
  return [r, g, b, a];
}

function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((v) => {
    const c = v / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}

function ratio(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

function background(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return null;
}

function hasText(element) {
  return Array.from(element.childNodes).some((n) => n.nodeType === 3 && n.data.trim());
}

const found = [];
let n = 0;
document.querySelectorAll("body *").forEach((e) => {
  if (["SCRIPT", "STYLE"].includes(e.tagName) || !e.checkVisibility()) return;
  const style = getComputedStyle(e);
  const behind = background(e);
  const inSvg = e instanceof SVGElement;
  if (hasText(e)) {
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const value = ratio(rgba(inSvg ? style.fill : style.color), behind);
    n += 1;
    if (!(value >= (large ? 3 : 4.5))) found.push(`${e.textContent.slice(0, 40)}: ${value}`);
  } else if (inSvg && e.matches(".line:not(.other), .mark")) {
    const paint = e.matches(".mark") ? style.fill : style.stroke;
    const value = ratio(rgba(paint), behind);
    n += 1;
    if (!(value >= 3)) found.push(`${e.getAttribute("class")}: ${value}`);
  }
  ["::before", "::after"].forEach((pseudo) => {
    const own = getComputedStyle(e, pseudo);
    if (["none", "normal", '""'].includes(own.content) || own.opacity === "0") return;
    const value = ratio(rgba(own.color), behind);
    n += 1;
    if (!(value >= 4.5)) found.push(`${pseudo} of ${e.tagName}: ${value}`);
  });
});
return [n, found];
