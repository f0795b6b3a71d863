"""How the page looks: neutral greys, one amber accent, the system's own fonts. Nothing comes from the network.

Colours of Gradio's own components are set here, for light and dark; everything else is in theme.css, train.css and look.css,
from the same variables.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

CSS_FILES = [Path(__file__).parent / name for name in ("theme.css", "train.css", "look.css", "candidates.css", "rights.css")]

GREYS = gr.themes.Color(
    c50="#fafafa", c100="#f4f4f3", c200="#e6e6e4", c300="#d2d2cf", c400="#a3a39f", c500="#757571",
    c600="#545451", c700="#3a3a38", c800="#262625", c900="#1b1b1a", c950="#131312",
)  # fmt: skip
AMBERS = gr.themes.Color(
    c50="#fdf6ea", c100="#faead0", c200="#f3d3a0", c300="#ecbb6c", c400="#e6a744", c500="#e0992e",
    c600="#b97818", c700="#8f5b0f", c800="#64400b", c900="#3f2907", c950="#241703",
)  # fmt: skip


def create_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue=AMBERS,
        secondary_hue=GREYS,
        neutral_hue=GREYS,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_sm,
        text_size=gr.themes.sizes.text_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Consolas", "monospace"],
    )
    return theme.set(
        body_background_fill="#fbfbfa",
        body_background_fill_dark="#131312",
        body_text_color="#1f1f1e",
        body_text_color_dark="#dededb",
        body_text_color_subdued="#6a6a66",
        body_text_color_subdued_dark="#92928d",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1b1a",
        background_fill_secondary="#f4f4f3",
        background_fill_secondary_dark="#131312",
        border_color_primary="#e2e2df",
        border_color_primary_dark="#2c2c2a",
        border_color_accent="#e0992e",
        border_color_accent_dark="#e0992e",
        color_accent_soft="#faead0",
        color_accent_soft_dark="#3f2907",
        link_text_color="#8f5b0f",
        link_text_color_dark="#e6a744",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="#6a6a66",
        block_label_text_color_dark="#92928d",
        block_label_border_width="0px",
        block_title_text_color="#1f1f1e",
        block_title_text_color_dark="#dededb",
        block_title_text_weight="500",
        block_info_text_color="#6a6a66",
        block_info_text_color_dark="#92928d",
        block_padding="0px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1b1b1a",
        input_border_width="1px",
        input_border_color="#dcdcd8",
        input_border_color_dark="#2c2c2a",
        input_border_color_focus="#e0992e",
        input_border_color_focus_dark="#e0992e",
        input_shadow="none",
        input_shadow_focus="0 0 0 2px rgba(224, 153, 46, 0.25)",
        input_shadow_focus_dark="0 0 0 2px rgba(224, 153, 46, 0.25)",
        input_padding="8px 10px",
        button_primary_background_fill="#e0992e",
        button_primary_background_fill_dark="#e0992e",
        button_primary_background_fill_hover="#e9aa4a",
        button_primary_background_fill_hover_dark="#e9aa4a",
        button_primary_text_color="#1c1305",
        button_primary_text_color_dark="#1c1305",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_primary_shadow="none",
        button_secondary_background_fill="#efefed",
        button_secondary_background_fill_dark="#262625",
        button_secondary_background_fill_hover="#e4e4e1",
        button_secondary_background_fill_hover_dark="#30302e",
        button_secondary_text_color="#1f1f1e",
        button_secondary_text_color_dark="#dededb",
        button_secondary_border_color="transparent",
        button_secondary_border_color_dark="transparent",
        button_secondary_shadow="none",
        button_transform_hover="none",
        button_transform_active="none",
        slider_color="#e0992e",
        slider_color_dark="#e0992e",
    )
